// Package events keeps the newest events of a node.
//
// A Log gets events in three ways. What entries of raft's log did comes from the state, with
// Log.News: every node records the same, under the same key. What happens to the node itself comes
// from its log: a record with the attribute "event" is an event too (Log.Logger). So the log and
// the events never tell different stories. The rest is added with Log.Add, such as what package vip
// reports.
//
// # Guarantees
//
//   - A Log keeps the newest 256 events, whose texts are cut when they are long. It counts all of
//     them by kind.
//   - A reader gets the events in their order, and never holds up who records. A slow reader misses
//     events, and sees that at their numbers.
//   - A record of the log below the level of the program's logger is an event all the same, if it
//     is an INFO record at least.
//   - While a node catches up with what happened before it came, it records none of that.
package events
