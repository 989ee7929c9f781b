// Package peers keeps what a node knows of the others: the peer table.
//
// # What it knows
//
// There are three sources. The first counts most:
//
//  1. A node's own greeting, which [Table.Observe] takes. It says where the node is, which process
//     it is, and how far that has applied the log.
//  2. The state, where the leader records members' names and addresses.
//  3. What other nodes say of a node, which [Table.Learn] takes, until the node speaks for itself.
//
// The table also knows which processes have ended, which are barred, and which nodes are leaving.
//
// # Guarantees
//
// A greeting that is older than the newest one of its node changes nothing: incarnations are in the
// order of a node's starts. All methods are safe for concurrent use, and none waits for anything.
//
// # Assumptions
//
// The caller has checked that a greeting comes from the node that it names, and that this process
// may go on as that node. An address proves nothing about who is there.
package peers
