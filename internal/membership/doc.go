// Package membership leads a node into its cluster, keeps it there, and decides which nodes are in
// one cluster with it.
//
// # Parts
//
// [Membership] consists of parts with one job each. A part uses those before it:
//
//   - [IdentityFile]: what the node must not forget, on disk before any other node hears of it
//   - [Copies]: which process of a node has the node's place, see copies.go
//   - [Greetings]: what nodes say of themselves, and the rounds in which this one greets all others
//   - formation: forms a new cluster; proposal.go has the protocol, its proof and its decisions
//   - [Entry]: leads the node into a cluster, by the findings of a round
//   - [Sessions]: opens and ends sessions, and ends those of dead processes by death notices
//   - [Configurator]: changes raft's configuration while this node leads; roster.go decides
//   - [Reach]: which peers cannot be reached or are configured otherwise, and why, for people
//
// # Flow
//
// Audit asks the peers whether the directory is an older copy. Enter greets them until the node
// runs raft. Then the node runs, in turn, OpenSession, RecordSession and Live, for as long as it
// is open. A leader also runs Lead.
//
// # Guarantees
//
// Two clusters never come of one formation, and a formation completes after any interruption, once
// a majority of the group is there. A directory that has forgotten acknowledged entries takes no
// part as its node. A change of the voters leaves a majority of them there. A member that is there
// is not removed, and keeps its vote unless an operator demotes it or the others survive more
// without it. A witness and a demoted member lead only until another voter can. A program that does
// not support the cluster version takes no part. An address proves nothing about which node is
// there: the certificate does.
//
// # Assumptions
//
// The node ID that comes with a call was proved by a certificate, see internal/wire. A node loses
// its whole directory or nothing of it, or is set back to an earlier state of it.
//
// # Messages
//
// Each call has a type with Encode and a decode function beside it, and a fuzz test in
// messages_test.go. Greetings, formation, join and leave are JSON: unknown fields are skipped, and
// an absent field means zero. Those of sessions, processes and death notices are binary.
//
// To add a field to the greeting:
//
//  1. Declare it in [Greeting], where zero means "not said". Never rename or reuse a field.
//     [Greeting] embeds state.Member, whose fields are in the log and in snapshots too: a field of
//     the greeting alone does not go there.
//  2. Set it in Greetings.Greeting. Read it in ServeHello (of the caller) and Greetings.observe (of
//     an answer). ServeJoin gets the same body. The answers that formation.hello and AnnounceLoss
//     get do not pass observe.
//  3. If a node that waits should look again when it changes, add it to Greeting.progress.
//  4. Add the field to the example in FuzzGreeting, which does not notice if it is missing. Add a
//     row with the field in JSON to TestGreetingsOfOtherVersions, which fixes its name.
//  5. Raise [Protocol] only if nodes without the field must know that they lack it. A greater
//     Protocol is logged, and refuses nobody. Raise it in the "later" row of that test too.
//
// A setting that nodes compare needs no field: it goes into ownSettings in settings.go of the root.
package membership
