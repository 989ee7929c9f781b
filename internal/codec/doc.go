// Package codec writes and reads the small binary messages of the project: commands in the log,
// records in snapshots and backups, datagrams, and bodies of RPCs. All of them are authenticated
// before they are read.
//
// A message is one Go type with an encoder and a decoder side by side, fuzzed as a pair. Its fields
// follow one another in a fixed order, without tags: integers as varints, texts and bytes behind
// their lengths.
//
// # How formats change
//
//  1. Everything that is stored, and every message that stands alone, names the version of its
//     format near its beginning ([Decoder.Version]). For an RPC the version is in the path instead,
//     and for a connection in the name of its protocol. A reader refuses a newer version and says
//     so.
//  2. Without a new version, a message may only grow: a field is added at the end, never removed,
//     moved or given another meaning. An absent field means zero ([Decoder.More]). So a newer
//     reader understands an older writer.
//  3. A reader refuses what it does not know: a kind, a flag, bytes that are left over
//     ([Decoder.End]). To ignore them would be to carry out half of a request. Two things may be
//     skipped, because their format says so from its first version on: the fields behind the known
//     ones in a message that ends with [Decoder.EndOpen], and a record of an odd kind
//     ([Skippable]). Both are for information that an older reader can do without.
//  4. An element of a list that may grow on its own is nested ([Encoder.Nest]): its length shows
//     where it ends.
//  5. A number of a kind, a flag or a command is never used again.
//
// # A cluster with several versions of the program
//
// What is written to the log must mean the same to every node, so no node may write what another
// does not know. The cluster version, a number in the replicated state, decides what may be
// written. Each node says at its greeting up to which cluster version its program supports them.
// The leader raises the cluster version, by a command, when every member supports the next one:
// package upgrade. From that entry on, and not before, nodes propose the commands and fields that
// the version adds: State.Admits of internal/state.
//
//   - A member that is replaced by an older program before that needs nothing: no log has anything
//     new in it. The command that raises the version names the session of every member, so it does
//     nothing if a process is another one by then.
//   - A node that does not support the cluster version is refused at its greeting, with a message
//     that says what to upgrade.
//   - A node that finds an unknown command or snapshot record in its log stops with an error. It
//     never skips one: its state would differ from that of the others.
//   - Datagrams and RPCs between members follow the same rule: what a cluster version adds is sent
//     only once it holds. The JSON messages of internal/membership need no version: a reader skips
//     what it does not know. An RPC of an operator needs none either: who does not know it says so.
//   - Everything on disk, on the wire and in a backup keeps the version byte of the format that it
//     was written in, so a newer program reads an older directory and an older backup.
//   - A program works together with those of the release before it. Between releases that are
//     farther apart nothing is promised.
package codec
