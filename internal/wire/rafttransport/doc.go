// Package rafttransport is the raft.Transport of a node, over authenticated connections.
//
// Inside it is raft's own NetworkTransport: one for everything that leaves, and one for each peer
// that connects, so that a request is known to come from that peer. Around it stand remedies for
// faults of raft v1.7.3, each with a test that fails on bare raft:
//
//   - There is no heartbeat handler. It would run on the transport's goroutine beside raft's main
//     loop, and committed logs diverge after a leader has stood still
//     (https://github.com/hashicorp/raft/issues/695).
//   - There is no pipeline: it can deadlock for ever
//     (https://github.com/hashicorp/raft/issues/612).
//   - AppendEntries are not sent while the node's own disk hangs. Otherwise a leader that can write
//     nothing would never be replaced (https://github.com/hashicorp/raft/issues/503).
//   - A request is refused unless it names the node that the certificate proves, the node's Policy
//     agrees, its log does not contradict this node's, and its term is plausible. One AppendEntries
//     with a term near 2^64 would make elections impossible for good.
//   - Replication to a peer that is down is held instead of failed. raft would wait up to 10 s
//     between two attempts, and nothing can wake it when the peer returns.
//   - A connection that a peer abandons in the middle of a request is closed. raft's main loop
//     reads snapshots from it.
//
// # Flow
//
//	raft ─► Transport: held?, may send?, annotation ─► NetworkTransport ─► Dialer
//	Acceptor ─► Endpoint ─► Transport: NetworkTransport of the peer ─► checks ─► raft
//
// An annotation travels with each AppendEntries and InstallSnapshot: the checksum of the sender's
// log (package history), and whether the follower is to answer only when it has applied the commit.
//
// # What raft's traffic shows
//
// The Transport also keeps what the node's own protocols need to know: how far a peer has confirmed
// the log ([Transport.Match]), how far a leader has said that it is committed
// ([Transport.Committed]), and which incarnation of a peer led last ([Transport.LedBy]). When all
// raft connections of a peer have ended and its port refuses, its process is dead: Node.Gone.
//
// # Lifetime
//
// raft is restarted within a process. [Endpoint] makes one Transport after the other. Call Release
// or Close before waiting for raft to shut down: held calls keep its goroutines.
package rafttransport
