// Package durable keeps what a node must not forget: its raft log, its term and
// vote, its snapshots, and a few small files. It is hashicorp/raft-boltdb/v2 and
// raft's file snapshots with the following faults mended from outside, without a fork:
//
//   - Damage is noticed. Every entry carries a checksum, and the file is checked as a
//     whole before bbolt maps it, which panics or reads wrong data otherwise. A damaged
//     directory is refused with a [DamagedError]; it is never repaired by guessing,
//     because a voter that forgot may vote twice.
//   - Term and vote are one record, so that a crash between the two writes cannot leave
//     a vote that was never given (hashicorp/raft issue 661).
//   - A disk error ends this raft instance and nothing else. raft answers it with a
//     panic, which would end the host program.
//   - A snapshot that conflicts with the log replaces it (hashicorp/raft issue 697).
//
// # What is on disk
//
//	lock         empty; locked while the directory is in use
//	raft.db      bbolt file of raft-boltdb: bucket "logs" (entries, and one trailer
//	             record under the highest key), bucket "conf" (one vote record)
//	snapshots/   raft's file snapshots, each with a preamble before the content
//	applied      how far the log was applied, see [Mark]; not synced
//	set-aside-*  what SetAside has moved out of the way
//	other files  written by [Dir.WriteFile], each with a checksum
//
// # How staleness is noticed
//
// Checksums do not notice a page that was right once. A flipped bit in a page number can
// lead to an older version of a page, which bbolt leaves in its free pages, and so to a
// log that lacks its newest entries and is consistent in itself. Hence entries are chained (each
// holds the checksum of the one before), the trailer names the last one, and trailer
// and vote record each name the bbolt transaction that wrote them and the one that
// wrote the other. The newer of the two must be the transaction that bbolt's meta page
// names, which has a checksum of its own: nothing older can take its place.
package durable
