// Package journal is an append-only file in segments. One fdatasync makes a batch durable, however
// much is in it.
//
// # Guarantees
//
//   - Append returns when the batch is on the disk. A crash leaves all of it or nothing.
//   - Damage is noticed. Open reads everything, and so does each later read: no single flipped bit,
//     and no sector with other content, leads to other data.
//   - A missing part is noticed: a segment that is gone or cut, or a batch between others.
//
// # Assumptions
//
// One process has the directory. A sector of 512 bytes is written as a whole or not at all. One
// goroutine at a time appends, and waits for the disk before the next batch.
//
// # Form
//
// A segment is a file of a fixed size, filled with zeros before it is used: an append then changes
// no metadata of the file system, and its sync is a single write. (Space that is only allocated
// would have to be marked as written with each append.) A segment that is removed is filled with
// zeros too, so that nothing of it is left on the disk. The next segment is made of its file.
//
// A file consists of sectors of 512 bytes:
//
//	kind 1, low bits of the batch's number 4, content 503, CRC-32C 4
//
// The checksum covers the sector's place too, so that no sector counts in another place. The first
// sector is the head of the segment. Batches follow, each beginning in a sector of its own. So no
// sector is written twice, and a crash never harms an older batch.
//
//	batch: flags 1, length 4, number 8, checksum of the batch before 4, checksum 4, content
//
// The checksums are chained, which makes the journal one sequence. The last batch of a segment is
// empty and says that the next segment goes on. So the end is known: the newest segment has no such
// batch.
//
// # How a torn write differs from damage
//
// A crash in the middle of an append leaves some sectors of the newest batch written, and the
// others zero. Open removes such a batch: nobody was told that it is durable. A written sector is
// never zero, because its kind is not. So a sector that is neither zero nor right is damage, and
// damage is never repaired by guessing.
//
// What nothing in the files can show is that the disk has lost the newest batches as a whole. A
// process that opens the journal again knows where it ended, and says so (Options.Known).
package journal
