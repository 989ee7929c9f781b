// Package diskfile writes files that survive a crash, and notices when they are damaged or moved.
//
//   - A checksum shows whether a record is as it was written ([AppendSum], [CutSum]).
//   - A file is replaced as a whole. It is on the disk when the call returns ([Create], [SyncDir]).
//   - [Places] keeps the files of a directory open. It notices when a path no longer leads to what
//     this process has open there, and a deleted file can be written anew from what it held.
//
// Damage is never repaired by guessing. A checker returns a [Finding] without knowing the file's
// name; [Named] makes it a [DamagedError], which names the file and the remedy.
package diskfile
