// Package lease keeps the lease of this node's session, gives grants to the sessions of others, and
// detects failed nodes. Every right of a node to act on its own depends on its lease: to hold roles
// and locks, and to answer reads from memory.
//
// # Guarantees
//
// The cluster ends a silent session only when its node no longer counts on its lease. So two
// sessions never hold the same thing. ARCHITECTURE.md has the argument ("Why two sessions never
// hold the same thing"), TestLeaseStateSpace and TestLeaseAcrossVoterChanges search for a way
// around it, and each script in testdata checks it.
//
// The clock decides whether a lease lasts, at the moment of the question. A process that stood
// still finds its lease over before anything in it has noticed that.
//
// Neither leases nor grants need a leader or a disk. An idle cluster writes nothing.
//
// # Assumptions
//
// All clocks run within a hundredth of the right speed; what they show does not matter. Voters
// change one at a time, each change at least the length of a grant after every session has applied
// the last one (package replica sees to that). Nodes that know the cluster's secret are honest.
// Datagrams may be lost, come late, twice or out of order.
//
// # Flow
//
// Several times per lease the Manager of each node sends a Renew to all voters, its own node
// included. A voter answers with a Grant, which binds it for a little more than the length of a
// lease, by its own clock. With grants of a majority the lease lasts until a little less than its
// length after the Renew was sent (types own and held). A Grant that is not urgent waits until its
// voter sends to that node anyway, and a Kept says for how long it has waited. From that come the
// round-trip times, and no lease depends on it.
//
// A voter that has applied a suspicion grants that session nothing more. When its last grant has
// expired it says so to the leader with an Expired. A voter that has just started grants nothing
// until it has caught up with a leader, and reports nothing before an earlier process's grants must
// have expired as well (types voter and grants).
//
// The leader commits a suspicion of a session that has fallen silent, and its end when a majority
// of the voters has reported. If the session asks again in time, the leader commits that it is
// cleared (type detector). Roles that may still be visible after the end stay in hold-down until it
// expires (type holdDowns).
//
// A follower whose grants to the leader's session have expired asks the other voters whether theirs
// have. If a majority agrees, it stands for election (type follower).
//
// What the package needs of raft is in the interfaces Replica and Term.
package lease
