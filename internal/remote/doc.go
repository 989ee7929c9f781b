// Package remote lets a program that is not a member talk to a cluster. The operators' command is
// such a program.
//
// # Guarantees
//
// A Client proves with the cluster's secret that it may ask. It is no member: no node lists it, and
// no node calls it. It tries one node after another until one answers. Every request may be
// repeated, so a lost answer does no harm.
//
// # Messages
//
// Each request and each reply is a Go type with its encoder and decoder beside it, see package
// codec. Packages above this one answer them. Their version is in the path of the RPC. A message is
// never changed: a new one gets a new path. A node that does not know a path answers 404, and one
// that cannot read a message 400. The Client then says which side to upgrade.
//
//	orders.go    about the cluster: status, members, roles, draining
//	records.go   about the cluster's storage
//	backup.go    a backup of the cluster
//	diagnose.go  what one node says of itself, for those who look for a fault
//
// # Flow
//
//	Client method ─► request.Encode ─► RPC to one node ─► (that node asks the leader) ─► DecodeReply
package remote
