// Package durable keeps what a node must not forget: its raft log, its term and vote, its
// snapshots, and a few small files, in one data directory.
//
// # Parts
//
//	Dir        the directory: its lock, small files, rights, and whether everything is in its place
//	Log        raft's log and stable store. It is raftlog.Log, which puts a journal in front of
//	           raft-boltdb; only boltlog knows bbolt, only journal the segments
//	snapshots  raft's snapshot store. It is snapstore.Store; nothing else here knows its files
//	View       a directory for a reader that changes nothing
//	diskfile   checksums, files that survive a crash, files that are kept open
//
// raft sees a log only as a raft.LogStore and a raft.StableStore, and snapshots only as a
// raft.SnapshotStore. [Dir.OpenLog] and [Dir.OpenSnapshots] are the two places where a Dir builds
// them.
//
// # Guarantees
//
//   - Damage is noticed, and a damaged directory is refused with a [DamagedError]. It is never
//     repaired by guessing, because a voter that forgot may vote twice.
//   - A log of this process is never read with less in it than was reported as written.
//   - A write to a file that was deleted or replaced under the process is not reported as done.
//     What was deleted can be written anew from what the process has open ([Dir.Restore]).
//   - A disk error ends this run of raft and nothing else.
//
// # What is on disk
//
//	lock         empty; locked while the directory is in use
//	raft-*.log   the newest part of the log, see package journal
//	raft.db      the older part, and which raft-*.log must be there, see package boltlog
//	snapshots/   raft's file snapshots, see package snapstore
//	applied      how far the log was applied, see Mark; not synced
//	set-aside-*  what SetAside has moved out of the way
//	other files  written by Dir.WriteFile, each with a checksum
//
// # Flow at start
//
//	Lock ─► ReadFile(identity) ─► OpenLog (checked as a whole)
//	─► OpenSnapshots (checked; the log is made to fit) ─► raft
package durable
