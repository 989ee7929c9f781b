package peerconn

import (
	"net"
	"sync"

	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// Conn is a connection that a [Set] tracks. Its Close sends no TLS alert, because that can block
// behind a peer that does not read.
type Conn struct {
	net.Conn          // the TCP connection; the TLS connection on it once it is authenticated
	raw      net.Conn // the TCP connection

	mu       sync.Mutex
	peer     peertls.Peer // what the other end has proven to be; zero before that
	protocol Protocol
	inbound  bool
	secret   seal.KeyID // that it was made with; zero before the handshake
	closed   bool
	after    []func() // called once it is closed
}

// Peer returns what the other end has proven to be; the zero Peer before that.
func (c *Conn) Peer() peertls.Peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer
}

// Protocol returns what the connection is for; empty before the handshake.
func (c *Conn) Protocol() Protocol {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.protocol
}

// Inbound reports whether the peer has made the connection; false before the handshake.
func (c *Conn) Inbound() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inbound
}

// Secret returns the ID of the secret that the connection was made with; zero before the handshake.
func (c *Conn) Secret() seal.KeyID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.secret
}

// identify records what the other end has proven to be.
func (c *Conn) identify(peer peertls.Peer, protocol Protocol, inbound bool, secret seal.KeyID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peer, c.protocol, c.inbound, c.secret = peer, protocol, inbound, secret
}

// Close closes the TCP connection. It may be called again.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	after := c.after
	c.mu.Unlock()

	err := c.raw.Close()
	for _, f := range after {
		f()
	}
	return err
}

// AtClose calls f when the connection is closed, at once if it is closed already. f must not block.
func (c *Conn) AtClose(f func()) {
	c.mu.Lock()
	late := c.closed
	if !late {
		c.after = append(c.after, f)
	}
	c.mu.Unlock()
	if late {
		f()
	}
}
