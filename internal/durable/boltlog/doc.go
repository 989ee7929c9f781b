// Package boltlog keeps raft's entries, and its term and vote, in one file of raft-boltdb, with the
// file's faults kept away from outside, without a fork.
//
// It is the place where entries stay. Package raftlog is what raft writes to: it puts a journal in
// front of this file, and says what becomes of raft when a disk fails.
//
// # Guarantees
//
//   - Damage is noticed. Every entry has a checksum, and the file is checked as a whole before
//     bbolt maps it. bbolt would panic on a damaged file, or read wrong data.
//   - Staleness is noticed, see below.
//   - Term, vote and the name of the journal in front are one record. A crash leaves the old one or
//     the new one.
//   - Every call ends in a result or an error, also if bbolt panics or a page of the mapped file
//     cannot be read. After an error nothing more is written, see [Log].
//
// # Assumptions
//
// One process has the file open. A sector of 512 bytes is written as a whole or not at all.
//
// # Flow
//
//	Open: read from disk ─► image (bbolt's pages) ─► contents (entries, records) ─► bbolt maps it
//	write: Append, Cut, SetVote ─► transactions with entries and a record ─► fsync
//
// The file has two buckets: "logs" holds the entries and, under the highest key, the trailer;
// "conf" holds the vote record. The journal seals entries first ([AppendSealed]), and this file
// holds the same bytes.
//
// Append and SetVote are one transaction each. Cut takes three: the trailer announces which entries
// will go, they go, and the next trailer says that they are gone. The file is right after each, and
// Open finishes what a crash has interrupted.
//
// Entries are deleted at the end only. At the beginning nothing is: when no entry of the file is
// needed any more, its owner puts an empty file in its place ([Create]).
//
// # Older files
//
// Before there were journals, the vote record (version 1) named none. Such a file is read as one
// with no journal in front (the zero [Front]). The deletion that its trailer announces may be at
// the beginning of the log, too.
//
// # How staleness is noticed
//
// Checksums do not notice a page that was right once. A flipped bit in a page number can lead to an
// older version of a page, which bbolt leaves among its free pages. The log then lacks its newest
// entries and is consistent in itself. So entries are chained: each holds the checksum of the one
// before. The trailer names the last entry. Trailer and vote record each name the bbolt transaction
// that wrote them and the one that wrote the other. The newer of the two must be the transaction
// that bbolt's meta page names, which has a checksum of its own. Nothing older can take its place.
//
// Two kinds of transaction write neither record: the deletion that a trailer announces, and the one
// that raft-boltdb makes when it opens a file, which the vote record announces. After an
// announcement the newest transaction may be the next one.
//
// A file that is older as a whole is right in itself. A process that opens it again knows what it
// has written, and says so (Options.Known).
package boltlog
