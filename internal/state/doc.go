// Package state holds what the cluster agrees on: records, items of programs, roles and their
// queues, sessions, members, and the keys of session tickets.
//
// # Guarantees
//
// A [State] is immutable. [State.Apply] returns another one, which shares what has not changed. So
// a reader takes no lock, and a snapshot is a pointer.
//
// Apply is a pure function of a state and a [Command]: every node that applies the same entries has
// the same state. The package knows no network, disk, clock or random number. It imports time for
// durations only. A time that the state shows comes with the command, from the clock of the node
// that proposed it, and no decision depends on it.
//
// A command of a session takes effect once. The state keeps the answers to the newest commands of
// each session, so a repeated command gets the first answer. A command of a session that has ended
// does nothing.
//
// # Assumptions
//
// Entries arrive in the order of the log, each once. The caller skips those that it has applied. A
// command was checked by the node that proposed it. The state machine checks only what depends on
// the state.
//
// # Formats
//
// A log entry is a format version ([EntryVersion]), a kind, and the rest. The rest is either a
// [Keyring], which gives a new cluster its identity and keys, or one command, sealed with a data
// key of that keyring. A snapshot is a sealed stream that names its own format version
// ([SnapshotVersion]). Another format version is refused.
//
// Commands and snapshots also name a cluster version. [State.Version] is a version that every
// member supports. [RaiseVersion] raises it by one. A command names the version that its reader
// must support in Requires. No node proposes it before the cluster has that version. A node that
// does not support it, or does not know the number of a command, stops: it never skips a command.
//
// # Files
//
// Each noun has a file: records.go, items.go, roles.go, sessions.go, members.go, votes.go,
// tickets.go, version.go. The file has the noun's type, its form in a snapshot, and the commands
// that change it. Those of items are in write.go. Beside them, role.go has the queue of a role,
// process.go the incarnations of a process, and listing.go the reads of certmagic.Storage.
// command.go has what all commands share, apply.go applies one, entry.go and snapshot.go are the
// formats of the log and of snapshots.
//
// # Where a new command goes
//
//  1. Give it the next free number in command.go, and move lastNumber. Numbers are in logs: none is
//     used twice.
//  2. Declare its type in the file of its noun, with a comment that says what it does and when it
//     does nothing. A field has one meaning in all cases. What only some cases need is a pointer to
//     a struct of its own.
//  3. Beside it write encode, its decode function, and apply. Encode and decode list the fields in
//     the same order. A new outcome is a [Code] in answer.go, with its word in Code.String and its
//     error in code.go. If nodes act on what the command changes, add that to [Effects] and to
//     Effects.add, and act in Node.onApplied. A restored snapshot has no effects: Node.onApplied
//     then takes everything for changed.
//  4. Add the decode function to decoderOf in entry.go.
//  5. Add an example to changes in command_test.go. The fuzz test takes it from there.
//  6. Add a word for it to the runner in script_test.go, and describe what it does in testdata.
//     "go test ./internal/state -run TestScripts -rewrite" writes the results there: read the
//     difference. A new guard also gets a row in internal/mutants.
//  7. New data in the state also goes into [New] and into snapshots: snapshot.go. The tag of a new
//     frame comes behind frameEnd, because the others must keep their numbers. A change of a frame
//     that exists raises [SnapshotVersion]. If two logs could differ in the data, extends.go
//     compares it too.
//  8. Propose it. A node uses Proposer.Do of internal/replica, which numbers it within the session,
//     so it takes effect once. A leader uses it too, or Leadership.ApplyAndNotify for a command
//     without a session, which may take effect twice. The failure detector uses LeaseTerm.Propose.
//     Commands of records may be needed in pernode.go of the root too.
//  9. Give it a method requires: the cluster version that its reader must support. If the last
//     release has [Version], raise that by one first. Command.Encode writes the number, and no node
//     proposes the command before [State.Version] has reached it, see [State.Admits]. A caller gets
//     a *VersionError until then, and must say so or do without. The same holds for a new field of
//     a command. The comment of internal/codec says how nodes of several versions live together.
package state
