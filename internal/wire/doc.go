// Package wire is the one TCP port of a node, and all its connections to other nodes.
//
// It only puts its parts together. Each part knows those below it and none above:
//
//	wire           Open, Close, Config
//	rafttransport  raft's transport, with raft's faults kept away from it
//	rpc            calls between nodes: HTTP/2 requests, answered by Config.Handler
//	datagram       small messages one way, which may be lost
//	peerconn       the listener, dialling, bounds, which peers are there
//	peertls        TLS 1.3: who has the secret, and which node is it
//
// # Guarantees
//
// No byte of a peer is believed before both sides have proven with TLS 1.3 that they have the
// cluster's secret, and which node they are. ALPN then says what a connection is for. What has not
// authenticated is bounded in number and time. Close ends every connection and every goroutine.
//
// # Assumptions
//
// Everyone who has the secret can be any node: the node ID in a certificate guards against
// mistakes, not against a malicious member.
//
// # Flow
//
//	TCP ─ limiter ─ TLS 1.3 ─ answer ─ ALPN ┬ raft       requests are checked ─► raft
//	                                        ├ rpc        net/http ─► Config.Handler
//	                                        └ datagrams  frames ─► Config.OnDatagram
package wire
