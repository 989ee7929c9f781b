// Package clocks tells whether this node's wall clock can be relied on.
//
// Certificates are valid by the wall clock. A node whose wall clock is wrong would order what the
// cluster has, and delete what other nodes need. Such a node orders no certificates and deletes
// none. Nothing else depends on the wall clock: leases and roles go by elapsed time alone.
//
// # Guarantees
//
// [Clocks.Check] finds fault with this node's clock only if most of the other clocks are off by
// more than the limit. It errs on the side of trust: each difference is the smallest one that the
// observations allow.
//
// # Flow
//
// Each grant of a lease carries the voter's wall clock. The voter read it between the request and
// the arrival of the answer. Both moments are measured on this node's monotonic clock, so a late
// answer proves less, but never something wrong. Answers of certificate authorities count as one
// more peer. [Clocks.Look] logs what has changed.
//
// # Assumptions
//
// Most clocks are right. Two clocks that disagree both count as wrong.
package clocks
