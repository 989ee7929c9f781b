// Package boltlog is raft's log and stable store in one file of raft-boltdb, with the file's faults
// kept away from outside, without a fork.
//
// # Guarantees
//
//   - Damage is noticed. Every entry has a checksum, and the file is checked as a whole before
//     bbolt maps it. bbolt would panic on a damaged file, or read wrong data.
//   - Staleness is noticed, see below.
//   - Term and vote are one record, so that a crash between two writes cannot leave a vote that was
//     never given (hashicorp/raft issue 661).
//   - A disk error ends this run of raft and nothing else, see [Log]. raft would answer it with a
//     panic of the host program.
//
// # Assumptions
//
// One process has the file open. A sector of 512 bytes is written as a whole or not at all.
//
// # Flow
//
//	Open: read from disk ─► image (bbolt's pages) ─► contents (entries, records) ─► bbolt maps it
//	write: StoreLogs, DeleteRange, Set ─► one transaction with entries and trailer ─► fsync
//
// The file has two buckets: "logs" holds the entries and, under the highest key, the trailer;
// "conf" holds the vote record.
//
// # How staleness is noticed
//
// Checksums do not notice a page that was right once. A flipped bit in a page number can lead to an
// older version of a page, which bbolt leaves among its free pages. The log then lacks its newest
// entries and is consistent in itself. So entries are chained: each holds the checksum of the one
// before. The trailer names the last entry. Trailer and vote record each name the bbolt transaction
// that wrote them and the one that wrote the other. The newer of the two must be the transaction
// that bbolt's meta page names, which has a checksum of its own. Nothing older can take its place.
package boltlog
