// Package clocks compares this node's wall clock with those of its peers and of the authority.
//
// Certificates are valid by the wall clock. A node whose wall clock is wrong would order what the
// cluster has, and delete what others need. So it orders and deletes nothing while its clock
// differs from most others.
//
// Each grant of a lease carries the voter's wall clock. It was read between the question and the
// arrival of the answer, by this node's monotonic clock. So an answer that comes late proves less,
// but never something wrong. Only certificates and their cleaning depend on these clocks: leases
// and roles use elapsed time alone.
package clocks
