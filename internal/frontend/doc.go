// Package frontend takes a client's connection from the socket to the HTTP handler, and ends it
// without a lost request.
//
// # The path of a connection
//
//  1. The kernel completes the TCP handshake and queues the connection.
//  2. Listener.Accept takes it out of the queue. The listener knows it from now on until it is
//     closed, by the local address that the client has connected to.
//  3. The limiter makes it a pending connection: it has 10 s to complete its TLS handshake, and
//     there is a maximum of pending connections. Accept returns it at once, before any byte is
//     read.
//  4. http.Server starts a goroutine for it. The drainer counts it from here on.
//  5. The first read takes the PROXY header, if the peer is one of the balancers that must send
//     one.
//  6. The same read runs the TLS handshake. The handshake takes a slot while it computes, and gives
//     it back while it waits for the client or for a certificate.
//  7. A completed handshake ends the pending state. The limiter then only watches writes: a client
//     that takes nothing for 30 s is cut off.
//  8. http.Server reads requests, within its own timeouts, and the handler answers them.
//  9. When the drainer has begun, each answer says that it is the last of its connection.
//  10. The connection is closed, and listener, limiter and drainer forget it.
//
// A plain port goes the same way without step 6: its first byte ends the pending state. A health
// port has steps 1, 2, 4, 8, 9 and 10 only. Both are served by an http.Server with tight limits.
//
// # Guarantees
//
//   - Port.Drain loses no request and no connection: what the kernel has queued is accepted and
//     answered, and new clients are refused by then. It needs Linux, and the right to attach a
//     filter to a socket, which some kernels give only with CAP_NET_ADMIN. Elsewhere a connection
//     that arrives in the last moment may be reset. A socket that was lent gets no filter: such a
//     connection waits there for the next process.
//   - Silent clients, slow clients and floods of handshakes keep nobody else out.
//   - Server.DrainAddr disconnects the clients of one local address and leaves the others alone.
//   - A client's address is that of its PROXY header only if a listed balancer sent it.
//
// # Assumptions
//
//   - Accept is called by one goroutine, without pause, as http.Server.Serve does.
//   - The drainer owns the ConnState, ConnContext and Handler of its http.Server, and calls the
//     user's from them.
//   - Of package crypto/tls: a handshake runs in the goroutine that reads first, and its context
//     ends with it.
//
// Session tickets are sealed by package tickets, which is independent of this one.
package frontend
