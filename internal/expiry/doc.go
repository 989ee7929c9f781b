// Package expiry deletes the entries of programs' buckets whose time is over, while this node
// leads.
//
// # Guarantees
//
//   - An entry is not deleted before the leader's clock has counted its TTL, from the moment when
//     the leader had applied its last write or refresh. A new leader begins to count when its term
//     does.
//   - A write or a refresh that comes before the deletion in the log keeps the entry.
//   - Entries at rest cost no time: one timer waits for the earliest of them.
//
// No wall clock is compared. If the leader's clock runs faster than others by the drift that leases
// allow, entries expire that much sooner.
package expiry
