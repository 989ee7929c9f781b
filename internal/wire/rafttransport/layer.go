package rafttransport

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// MaxPool is the number of connections that are kept to a peer: for heartbeats, replication, votes.
const MaxPool = 3

// layer is a raft.StreamLayer. It accepts what is put into conns, and dials through the Dialer.
type layer struct {
	id      string
	dialer  *peerconn.Dialer
	streams *streams
	conns   chan net.Conn
	done    chan struct{}
	once    sync.Once
}

// newNetwork makes a raft.NetworkTransport on a layer. It logs nothing: it returns what fails to
// raft, which logs it.
func newNetwork(cfg Config, s *streams) (*layer, *raft.NetworkTransport) {
	l := &layer{id: cfg.ID, dialer: cfg.Dialer, streams: s, conns: make(chan net.Conn), done: make(chan struct{})}
	return l, raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Logger:          hclog.NewNullLogger(),
		Stream:          l,
		MaxPool:         MaxPool,
		MaxRPCsInFlight: 1,
		Timeout:         cfg.Timeout,
	})
}

// Accept implements net.Listener.
func (l *layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, peerconn.ErrClosed
	}
}

// Close implements net.Listener.
func (l *layer) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *layer) Addr() net.Addr { return nodeAddr(l.id) }

// Dial implements raft.StreamLayer.
func (l *layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	id := string(address)
	c := l.streams.takeSpare(id)
	if c == nil {
		var err error
		if c, err = l.dialer.Node(ctx, id, peerconn.Raft); err != nil {
			return nil, err
		}
	}
	l.streams.dialled(id, c.Peer().Incarnation)
	if !l.streams.keep(c) {
		c.Close()
		return nil, peerconn.ErrClosed
	}
	l.streams.addOutbound(id, 1)
	c.AtClose(func() { l.streams.addOutbound(id, -1) })
	return &outConn{Conn: c, broke: func() { l.streams.broke(id) }}, nil
}

// nodeAddr is a net.Addr that is a node ID.
type nodeAddr string

func (a nodeAddr) Network() string { return "flotilla" }
func (a nodeAddr) String() string  { return string(a) }

// inConn is an inbound connection. NetworkTransport sets no deadline on one, and raft's main loop
// itself reads a snapshot from it: a leader that vanishes in the middle of one would stop the
// follower's raft. So a gap within a request is bounded, and so is the writing of an answer. The
// gap between requests is not. One goroutine uses it.
type inConn struct {
	*peerconn.Conn
	timeout time.Duration
	within  bool // a request has begun to arrive and is not yet answered
}

func (c *inConn) Read(b []byte) (int, error) {
	var deadline time.Time
	if c.within {
		deadline = time.Now().Add(c.timeout)
	}
	if err := c.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(b)
	c.within = c.within || n > 0
	return n, err
}

func (c *inConn) Write(b []byte) (int, error) {
	c.within = false
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// outConn is an outbound connection. It reports when it breaks, because NetworkTransport pools
// connections without looking whether they still live. One goroutine uses it at a time.
type outConn struct {
	*peerconn.Conn
	broke func()
}

func (c *outConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.report(err)
	return n, err
}

func (c *outConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.report(err)
	return n, err
}

func (c *outConn) report(err error) {
	if err != nil && !peerconn.IsTimeout(err) {
		c.broke()
	}
}
