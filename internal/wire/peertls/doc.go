// Package peertls authenticates connections between nodes with TLS 1.3.
//
// Both sides prove two things: that they have the cluster's secret, and which node they are. The
// certificate authority is derived from the secret, so every node issues its own certificate and
// none is distributed.
//
// Guarantees. A completed handshake proves that the peer has one of our secrets. The certificate
// then names the node and its incarnation (one run of its process), see [Peer]. A certificate for
// the bearer of a death notice is good for a client only, never for a server.
//
// Assumptions. Everyone who has the secret can issue a certificate for any node. The node ID guards
// against mistakes, not against a malicious member. Time plays no part, because a wrong clock must
// not split the cluster: certificates are valid from 1970 to 9999, and are always verified as of
// the same day.
//
// Flow of a connection:
//
//	client: SNI names the key ID of its secret ─► server: shows the certificate of that secret
//	both:   verify the authority; the client also verifies the node ID, if it dialled a known node
//	client: its half of a TLS 1.3 handshake succeeds before the server has judged it
//	server: so it sends an [Answer] first, before the protocol that ALPN has chosen begins
package peertls
