// Package peerconn makes, takes and tracks the authenticated connections between nodes.
//
// A node has one TCP port. [Acceptor] takes connections there, authenticates them with package
// peertls, and hands each to the [Service] of the protocol that ALPN names. [Dialer] makes the
// connections to other nodes. [Life] ends them all, and every goroutine with them.
//
//	TCP ─► limiter (handshakes in progress) ─► TLS 1.3, peer ─► answer ─► Service of the protocol
//
// # Failure detection
//
// [Table] keeps what connections show about a peer: when it last answered, why the last dial
// failed, and whether its port refused. A refused port proves that the process is not there, as far
// as the address is right; anything else (a timeout, a reset, a closed connection) proves nothing.
// [Dialer.Probe] looks for that proof once a peer's connections have ended.
//
// # Bounds
//
// At most 256 connections may be unauthenticated, 32 of them from one host, for 3 s each. When a
// bound is reached, the connection that has been silent for longest is closed. A member
// authenticates within milliseconds, so it gets in past any number of connections that only wait.
// One authenticated peer has at most 64 connections.
//
// # Lifetime
//
// No goroutine of this package holds a mutex while it waits for the network. After [Life.End] no
// goroutine starts. [Life.Wait] returns when all have ended.
package peerconn
