// Package datagram sends small messages one way, without a promise that they arrive.
//
// # Guarantees
//
// [Service.Send] never blocks. Datagrams that arrive do so in the order in which they were sent,
// each at most once. A datagram is dropped when the queue is full (the oldest goes), when the
// connection breaks, and when the peer cannot be reached. So a sender repeats what matters.
//
// # Flow
//
//	Send ─► queue of a peer ─► sender: dials, pauses ─► writer ── frames ─► receiver ─► OnDatagram
//	                                                           ◄─ "here" ──
//
// One connection goes to each peer and one comes from it. The writer asks once a second whether the
// peer is still there, unless an answer to a datagram has shown that. Its answer distinguishes a
// dead path from one on which nothing was lost: TCP would be silent for minutes. After the path
// works again it would be silent for as long again.
//
// Datagrams from a peer's older connection are handed out before those of its newer one, and none
// of the older one afterwards.
//
// A dial that failed is repeated after 50 ms, then 100 ms. That is half of the shortest lease: with
// longer pauses a node that has just started would get no grants in time.
package datagram
