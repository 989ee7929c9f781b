package datagram

import (
	"log/slog"
	"time"

	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// Config describes a Service. All fields but OnDatagram are needed.
type Config struct {
	Dialer   *peerconn.Dialer   // makes the connections of senders
	Life     *peerconn.Life     // bounds all goroutines
	Peers    *peerconn.Table    // learns of peers, and says when one is back
	Logger   *slog.Logger       // gets what goes wrong
	Throttle *peerconn.Throttle // bounds the lines about one peer
	Rejected *meter.Counters    // counts connections that broke the rules

	// Timeout bounds a write. The answer to the question whether a peer is there may take a
	// quarter of it.
	Timeout time.Duration

	// Fresh says why an incarnation of a node is refused.
	Fresh func(id, incarnation string) error

	// OnDatagram gets each datagram of an authenticated peer, which is valid during the call only.
	// For one peer there is one call at a time, on the goroutine of its connection, so it must not
	// block. Nil: connections for datagrams are refused.
	OnDatagram func(id string, data []byte)
}
