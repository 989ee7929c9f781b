// Package admin is the admin client: how a command finds the nodes of a cluster, proves to them
// that it may ask, and talks to them.
//
// The addresses and the secret come from the flags, or from the variables that nodes read. The
// client dials the port that nodes use among themselves. Both sides derive their TLS identities
// from the secret, so each refuses a peer without it. The client tries the addresses in turn until
// a node answers; the node passes on what another node or the leader has to do.
package admin
