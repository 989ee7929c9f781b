// Package selfsign makes the self-signed certificates that a node serves until an authority has
// answered for the first time.
//
// Their serial number is a marker: the same on every node of a cluster and different in another
// cluster. Nodes recognize their own cluster by it. It proves nothing: who forges it makes a
// node place an order, no more.
package selfsign
