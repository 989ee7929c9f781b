// Package applied publishes the newest state that a node has applied, and wakes those who wait for
// one. It is the only thing that the parts of a node share of the replicated state.
//
// # Guarantees and assumptions
//
//   - Reads take no lock: a state never changes.
//   - A waiter may skip intermediate states, but always sees the newest one.
//   - One goroutine publishes, and never an older state. The state machine is that goroutine.
package applied
