// Package deathnotice tells a cluster that a process is dead.
//
// # Purpose
//
// A node's session ends when the failure detector says so, and that takes as long as the lease. A
// second process on the same machine can see the death of the first within milliseconds. The node
// therefore gives such a process a death notice beforehand: where the cluster is, and a credential
// that can do one thing only, to report that this session's process is dead.
//
// # Guarantees
//
//   - The credential is good for one session. It opens no other session, and its bearer cannot read
//     or write anything.
//   - Send returns nil only when a node has said that the session is over.
//   - Decode accepts only what Encode can produce. It never panics, whatever the bytes.
//
// # Assumptions
//
// The sender makes sure that the process is really dead, and that nothing of its roles can be seen
// any more. The cluster believes the notice. A wrong wall clock does no harm: the notice says as of
// which time certificates are verified.
//
// # Flow
//
// Package wire creates a Notice and encodes it. Package vip passes the bytes to the guard process.
// When the program dies the guard calls Send, which tries all nodes at once. The node that answers
// first passes the notice on to the leader, which ends the session. While the program lives the
// guard calls Rehearse once.
//
// The package knows neither raft nor the cluster's secret, so that a guard stays small.
package deathnotice
