// Flotilla is the operators' command: it checks machines, shows a running cluster, manages its
// members and roles, imports and exports certificates, and makes secrets. "flotilla help" lists the
// commands, and docs/command.md is the manual.
//
// # How it works
//
// The command is not a member of the cluster. It asks one node, over the port that nodes use among
// themselves, and that node passes on what another node or the leader has to do. So it needs the
// address of any node that answers, and the cluster's secret.
//
// Package internal/admin finds the addresses and the secret: in the flags -peers and -secret-file,
// else in the variables that nodes read, FLOTILLA_PEERS and FLOTILLA_SECRETS_FILE or
// FLOTILLA_SECRETS. Both sides derive their TLS identities from the secret, and each refuses a peer
// that does not have it. There are no users and no permissions: anyone who has the secret may do
// everything. The protocol is that of the module's package internal/remote.
//
// "flotilla witness" is the exception: it runs a node of the cluster, one that only votes.
//
// Requests can be repeated. Each names what it is about, such as the fence of the tenure that is to
// end or the leader that is to hand over. When that has already happened, the request does nothing.
//
// # Packages
//
// Imports go down this list, never up.
//
//	main                 a file for each command, or for those about the same thing; their table
//	internal/admin       the admin client: find and authenticate to a node, ask it
//	internal/show        a cluster as tables, remarks and changes; what there is to say about it
//	                     comes from the module's package internal/view
//	internal/preflight   whether a node could start here, and do its work
//	internal/bundle      an archive of texts, each without secrets
//	internal/redact      take what is secret out of texts
//	internal/importer    plan, read, check and store the records of a directory
//	internal/exporter    write records to a directory, and nothing outside it
//	internal/records     certmagic's storage layout, and the report of an import or export
//	internal/completion  scripts for shells
//	internal/cli         table of commands, flags, arguments, help, exit codes
//	internal/term        colours, tables, lines, progress
//
// A command gets everything from its process in a cli.Env: streams, environment, network, and
// whether a person watches. Tests give it another one.
//
// # Where does a new command go?
//
//  1. Into a file of its own, with a function that returns a cli.Command: name, arguments, help,
//     flags, and the action that runs once these are parsed. The file uses the packages above, and
//     no file of another command.
//  2. Into the table in main.go. Dispatch, help, completion and the check of the arguments follow
//     from the table.
//  3. Into docs/command.md.
//  4. Into a script of its own in testdata/script, and into help.txtar and completion.txtar there.
//     The scripts run the command against clusters in one process and virtual time; script_test.go
//     explains what they can do.
//  5. If it asks the cluster something new: its path and messages go into orders.go of
//     internal/remote, its client method into admin.go there, a round trip into records_test.go,
//     and the answer into internal/ops. TestOperatorSendsNonsenseAboutMembers lists the paths.
//
// An action returns an error and prints none. A cli.UsageError exits with 2, an unreachable cluster
// with 3, and any other error with 1. cli.ErrReported is for a command whose output already says
// what failed.
package main
