// Package replica is a node's part in the raft group: it runs raft on the node's disk, proposes
// commands, answers which writes were acknowledged, and does a leader's duties.
//
// # Guarantees
//
//   - A write is acknowledged when it is committed and every session in the state has applied it,
//     except sessions whose process is gone (Acks).
//   - A command takes effect once, however often it is proposed (Proposer). In the context of a
//     tenure it takes effect only while the tenure lasts.
//   - An index that Confirm returns is not below any write that was acknowledged before the call
//     (ReadIndex).
//   - Consecutive majorities of voters always intersect, and so do those that leases were counted
//     with (Leadership.AwaitStable).
//   - A node whose log contradicts that of its cluster stops, with a clear error (Chain).
//   - A disk that fails or hangs ends the node's part in the cluster until it works again. It never
//     ends the program (Outage, DiskCare).
//
// # Assumptions
//
// A disk keeps what it has confirmed as written, or package history and package durable find out
// that it did not. Clocks run at nearly the same rate, which only AwaitStable depends on. Package
// wire has authenticated a peer before the peer is heard here.
//
// # Flow
//
// A write is sealed by Proposer and taken to the leader in a batch. The leader's committer looks at
// it, and gives it to raft. raft replicates it by package wire, and the state machine of every node
// applies it and publishes the state in an applied.Store. An Opener spares them opening it again.
// The leader's Acks tells the others of the commit and waits for them. Then the proposer, which has
// waited for the state of its own node, returns the answer.
//
// Runner starts raft on the disk. Its duties begin a Leadership when raft has elected this node,
// and end it with the term. Group says what raft knows of the servers and the leader; Elections and
// Departure change the leader without raft's timeouts. When the disk has failed, Outage gives up
// the lease, and DiskCare starts raft again on what the disk holds.
//
// Other packages use a Replica, whose parts these are. Each part is given what it needs by New.
// None of them knows the Replica, and no two of their files use each other.
package replica
