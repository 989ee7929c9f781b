package wire

import "github.com/flotilla-ha/flotilla/internal/meter"

// Meters count what a Port does. The zero value is ready.
type Meters struct {
	// Rejected is how often connections and requests of peers were rejected, by the reason: see the
	// constants of package peerconn. A connection that ends before its handshake counts as
	// "handshake", also that of a peer or a balancer that only looks whether the port is open.
	Rejected meter.Counters
}
