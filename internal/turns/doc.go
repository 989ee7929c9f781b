// Package turns lets the nodes of a cluster take turns at changing one thing, so that those who
// compare and swap do not fail again and again.
//
// # Guarantees
//
// None that others may depend on. A turn is granted in the order in which nodes ask. It ends when
// its node says so, or after the time of a lease. Without a leader, or with another one, nobody has
// a turn, and callers go on without. The compare and swap in the log is what keeps changes apart.
//
// # Flow
//
//	Turns.Wait on a node → rpc.Turn → the leader's Table: the first of a queue gets its answer
//	the caller changes the thing → done → rpc.Turn → the leader answers the next one
//
// The leader's answer names the index that it has applied. The caller waits until its node has
// applied that too: the change of the node before is then in its state.
package turns
