package frontend

import (
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// clientConn is a client's connection. Its listener knows it until it is closed. http.Server knows
// it for a shorter time: it forgets a connection that a handler hijacks.
type clientConn struct {
	net.Conn
	local   netip.Addr // what the client has connected to
	begun   time.Time  // when it was accepted
	onClose func(*clientConn)

	// The mutex of the drainer guards these.
	top   net.Conn // the connection that http.Server has; nil: it has none yet
	phase phase
	since time.Time // when phaseIdle began

	progress atomic.Int64 // when its handshake last made progress, as a time.Duration since begun
	leaving  atomic.Bool  // every answer is the last
	requests atomic.Int32 // that handlers have
	closed   atomic.Bool
	spoke    atomic.Bool // a byte has come
}

// phase is what the drainer knows of a connection.
type phase byte

const (
	phaseFresh  phase = iota + 1 // accepted, without a request yet
	phaseActive                  // has a request without its answer
	phaseIdle                    // between two requests
)

// Read records that the client has sent something.
func (c *clientConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.spoke.Load() {
		c.spoke.Store(true)
	}
	return n, err
}

// Close closes the socket.
func (c *clientConn) Close() error {
	if !c.closed.Swap(true) {
		c.onClose(c)
	}
	return c.Conn.Close()
}

// CloseWrite ends the writing side, if the connection has two. It is for net/http, which does so
// before it closes a connection of which it has not read everything.
func (c *clientConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// abandon makes Close throw away what the kernel has not sent yet.
func (c *clientConn) abandon() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
}

// pendingRequests returns the number of requests on a connection in phaseActive. A request that no
// handler has yet counts as well.
func (c *clientConn) pendingRequests() int { return max(1, int(c.requests.Load())) }

// clientOf returns the clientConn below c, or nil if there is none.
func clientOf(c net.Conn) *clientConn {
	for {
		switch on := c.(type) {
		case *clientConn:
			return on
		case interface{ NetConn() net.Conn }: // crypto/tls
			c = on.NetConn()
		case interface{ Raw() net.Conn }: // go-proxyproto
			c = on.Raw()
		default:
			return nil
		}
	}
}

// plainAddr returns the form of addr in which addresses are compared: IPv4 as such, without zone.
func plainAddr(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }
