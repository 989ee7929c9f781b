// Package sweep keeps the storage free of records that are no longer needed: tokens of challenges
// and test records that an interrupted order left behind, expired certificates, old OCSP staples.
//
// One node of the cluster runs it at a time. It goes by elapsed time of its own: the times in the
// storage are those of other nodes' clocks. A leftover is deleted when the sweeper has seen it, the
// same, for an hour. Expired certificates are deleted by certmagic, and only while this node's
// clock agrees with most others.
package sweep
