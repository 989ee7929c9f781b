// Package staple gets OCSP staples: the signed answers of an authority's responder that a
// certificate has not been revoked. They go along in handshakes.
//
// certmagic would ask the responder while it loads a certificate, without a deadline. Here each
// certificate whose leaf names a responder has a goroutine of its own, and nothing waits for it.
// Leaves that name no responder cost nothing. An answer is stored under certmagic's key for the
// other nodes; one node asks, and the others wait for it at a lock. A node that cannot get the
// lock, as without a leader, asks for itself.
//
// An answer is replaced half way through its life, and never given after its end. That a
// certificate was revoked is logged and reported by Config.Revoked.
package staple
