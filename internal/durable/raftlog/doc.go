// Package raftlog is raft's log and stable store: an append-only journal in front of raft-boltdb.
//
// # Guarantees
//
//   - A write costs one sync, however many entries wait for it.
//   - Damage and staleness are noticed, see packages journal and boltlog. Every entry is chained to
//     the one before by a checksum, across both.
//   - A crash at any moment leaves what was acknowledged, and perhaps what was being written.
//   - A disk error ends this run of raft and nothing else, see [Log].
//   - The files are as large as the log, not as what was ever in it. Nobody waits while they
//     shrink.
//
// # Flow
//
//	StoreLogs, DeleteRange, Set ─► queue ─► one batch of the journal ─► one sync
//	upkeep: journal ─► raft-boltdb, when the journal is long; then its oldest segments go
//	Open: raft-boltdb (checked) + the journal's records = the log
//
// The newest entries are read from memory, older ones from the journal or from raft-boltdb.
//
// Each segment of the journal begins with the state of the log at that time: which entries it has,
// term and vote. So older segments can go. raft-boltdb's file names the first segment that must be
// there. Entries that were deleted are never moved: if a snapshot is taken in time, nothing is.
// When all entries in raft-boltdb are deleted, an empty file takes the place of its file.
//
// # Why not hashicorp/raft-wal
//
// It needs one sync too. But v0.4 checks no entry when it is read, cannot notice that its newest
// file is gone, keeps its description in a bbolt file of its own, and has no place for votes, which
// would need another sync elsewhere. Its authors call it experimental.
//
// # The term
//
// raft stores a new term before it does anything in it. This package keeps it in memory until the
// first vote or the first entry of that term is written, and writes both together. A node that
// crashes in between has forgotten a term in which it has promised nothing that counts:
//
//   - A vote is written before it is given, with its term. A node asks for votes only when its vote
//     for itself is written (rafttransport), so it never asks twice in one term with two logs.
//   - A success for entries is given when they are written, with their term. A success for entries
//     that were there before counts for nothing by itself: a leader commits only with an entry of
//     its own term, and who has that one has the term.
//   - A refusal binds nobody.
//   - A leader confirms that it still leads by asking a majority for their terms. A later leader
//     was elected by a majority, whose votes are written. One of them answers with the later term.
//
// The node is then one that the messages of that term never reached. Leases do not depend on terms.
//
// # Disk and network at the same time
//
// [Log.Queue] returns while the entries are being written. Package replica says when raft may use
// it, and why that is safe. Two things here belong to the argument. [Log.Durable] says what is on
// the disk. And a new term waits until everything is (Log.SetUint64), so that a node that no longer
// leads answers for nothing that it may still lose.
package raftlog
