// Package lifecycle holds how far a node is between its opening and its end, for all parts of the
// node to see.
//
// A node is open from New until End. It works while it is open and has not failed. Break ends its
// work for good, before it is closed. A [Setback] interrupts its work until the cause has passed. A
// node that leaves, is drained or is cordoned still works, but takes on less.
//
// Parts that change what others wait for call Notify of the matching signal after the change. The
// package decides nothing: it keeps what the parts report, and turns the end of the node into the
// errors that callers get.
package lifecycle
