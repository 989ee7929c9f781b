// Package snapstore is raft's snapshot store on files, with two faults kept away from outside.
//
// # Guarantees
//
//   - Damage is noticed ([Open]). raft's own checksum covers the content of a snapshot, but neither
//     its index, term and configuration nor its length, and raft leaves out a snapshot whose
//     meta.json it cannot read: it then falls back to an older one, or to none. Here a preamble
//     before the content repeats them, and every snapshot is read as a whole. Damage of the newest
//     is a diskfile.DamagedError. A damaged older one is deleted, because nothing reads it.
//   - A snapshot that conflicts with the log replaces it ([Guard], hashicorp/raft issue 697).
//
// # Assumptions
//
// The content is sealed by its owner, who notices when it was changed on purpose.
//
// # Flow
//
//	raft ─► Guard ─► Store: preamble ─► raft.FileSnapshotStore
//	           └── when a snapshot is finished: make the log fit it
//
// The two newest snapshots are kept.
package snapstore
