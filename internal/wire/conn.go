package wire

import (
	"net"
	"sync"
	"time"
)

// conn is a connection that the Port tracks. Its fields are set before it is shared.
type conn struct {
	net.Conn          // the TCP connection, and once authenticated the TLS connection on it
	raw      net.Conn // the TCP connection
	port     *Port
	peer     string    // the node that the peer has proven to be; empty before that
	process  string    // and which of its processes; empty if it did not say
	protocol string    // as ALPN names it
	will     *testator // the peer is no node, but the bearer of this one's will

	mu     sync.Mutex
	closed bool
	after  []func() // called once closed
}

// identify notes whom the peer has proven to be.
func (c *conn) identify(peer, process, protocol string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peer, c.process, c.protocol = peer, process, protocol
}

// stale reports whether another process has taken the place of the peer. Those that may only call are
// judged with each call: they are to hear why.
func (c *conn) stale() bool {
	c.mu.Lock()
	peer, process, protocol := c.peer, c.process, c.protocol
	c.mu.Unlock()
	return protocol != alpnCall && c.port.fresh(peer, process) != nil
}

// track makes a conn of raw, or reports that the Port is closed.
func (p *Port) track(raw net.Conn) (*conn, bool) {
	c := &conn{Conn: raw, raw: raw, port: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false
	}
	p.conns[c] = struct{}{}
	return c, true
}

// Close closes the TCP connection. It sends no TLS alert, since that can block behind a peer that does not read.
func (c *conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	after := c.after
	c.mu.Unlock()

	err := c.raw.Close()
	c.port.mu.Lock()
	delete(c.port.conns, c)
	c.port.mu.Unlock()
	for _, f := range after {
		f()
	}
	return err
}

// atClose has f called when the connection is closed, at once if it is already. f must not block.
func (c *conn) atClose(f func()) {
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

// inConn is an inbound raft connection. NetworkTransport sets no deadline on one, and raft's main loop itself reads a snapshot
// from it: a leader that vanishes in the middle of one would stop the follower's raft. So a gap within a request is bounded,
// and so is the writing of an answer; the gap between requests is not. One goroutine uses it.
type inConn struct {
	*conn
	patience time.Duration
	within   bool // a request has begun to arrive and is not yet answered
}

func (c *inConn) Read(b []byte) (int, error) {
	var deadline time.Time
	if c.within {
		deadline = time.Now().Add(c.patience)
	}
	if err := c.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	n, err := c.conn.Read(b)
	c.within = c.within || n > 0
	return n, err
}

func (c *inConn) Write(b []byte) (int, error) {
	c.within = false
	if err := c.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	return c.conn.Write(b)
}

// outConn is an outbound raft connection. It tells the peer's state when it breaks, for NetworkTransport pools connections
// without looking whether they still live. One goroutine uses it at a time.
type outConn struct {
	*conn
	broke func()
}

func (c *outConn) Read(b []byte) (int, error) {
	n, err := c.conn.Read(b)
	c.judge(err)
	return n, err
}

func (c *outConn) Write(b []byte) (int, error) {
	n, err := c.conn.Write(b)
	c.judge(err)
	return n, err
}

func (c *outConn) judge(err error) {
	if err != nil && !isTimeout(err) {
		c.broke()
	}
}
