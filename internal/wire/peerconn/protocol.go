package peerconn

import (
	"time"

	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// Protocol says what a connection is for, as ALPN names it.
type Protocol string

// The protocols of a node's port.
const (
	Raft      Protocol = "flotilla-raft/1"
	RPC       Protocol = "flotilla-rpc/1"
	Datagrams Protocol = "flotilla-datagram/1"
)

// Bounds of every connection.
const (
	DialTimeout      = 500 * time.Millisecond // for a TCP connection
	HandshakeTimeout = 3 * time.Second        // for TLS and the answer behind it
	MaxPerPeer       = 64                     // authenticated connections from one peer
	MaxPending       = 256                    // connections that have not authenticated yet
	MaxPendingHost   = 32                     // those of one host
)

// Service takes the inbound connections of one protocol. Its methods may be called from several
// goroutines at once.
type Service interface {
	// Admit reports why a connection of the peer is refused. The peer gets the text.
	Admit(peer peertls.Peer) error

	// Take gets a connection before the peer gets the answer that it is accepted. When the answer
	// was sent, serve is called, on a goroutine of the connection's own. If it could not be sent,
	// cancel is called instead and the connection is closed. Take must not block.
	Take(c *Conn) (serve, cancel func())
}
