// Package remote is how a program that is not a member talks to a cluster: the operators' command,
// for one.
//
// # Guarantees
//
// A Client proves with the cluster's secret that it may ask. It is no member: no node lists it, and
// no node calls it. It tries the nodes one after the other until one answers. Every request may be
// repeated, so an answer that was lost does no harm.
//
// # Messages
//
// Each request and each reply is a Go type with its encoder and decoder beside it, see package
// codec. The root package answers them. Their version is in the path of the RPC: a message is never
// changed, a new one gets a new path. A node that does not know a path answers 404, and one that
// cannot read a message 400; the Client then says which side to upgrade.
//
//	orders.go    about the cluster: status, members, roles, draining
//	records.go   about the cluster's storage
//
// # Flow
//
//	Client method ─► request.Encode ─► RPC to one node ─► (that node asks the leader) ─► DecodeReply
package remote
