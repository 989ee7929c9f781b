package frontend

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	handshakeTimeout = 10 * time.Second // for a connection's PROXY header and TLS handshake together; without TLS for its first byte
	stallTimeout     = 30 * time.Second // for a write to be taken, which is of a TLS record, 16 KiB
	maxPending       = 16384            // connections that are not through, at most
)

// Limiter is what a node's clients must pass: it bounds the connections that have not completed their TLS handshake, in number and in time, and the
// handshakes that are computed at once, so that neither silent clients nor a flood of handshakes keep others out. Once
// a connection is through, the gate looks only for writes that the client does not take. Its methods are safe for concurrent use.
//
// A connection leaves Accept before its handshake, so that the server on top knows it, and counts it when it drains. The limits
// close connections and set no deadlines for reading: those are the server's, and neither undoes the other.
type Limiter struct {
	HandshakeTimeout, stall time.Duration
	Max                     int           // pending connections
	Slots                   chan struct{} // for goroutines that compute a handshake, from the ClientHello to the answer: nearly all of its cost

	log *slog.Logger

	mu      sync.Mutex
	pending list.List                  // of *limitedConn; the one that has been longest without progress is in front
	said    map[proxyMistake]time.Time // when the log last heard of it
}

func NewLimiter(l *slog.Logger) *Limiter {
	return &Limiter{
		HandshakeTimeout: handshakeTimeout, stall: stallTimeout, log: l, said: make(map[proxyMistake]time.Time),
		// Of the descriptors most are for those who are through, and some for raft and files.
		Max: max(1, min(maxPending, openFiles()/4)),
		// One for each processor: more would have requests wait longer and no handshake come sooner. One fewer would keep requests from
		// waiting at all, since the runtime then looks at once what the network brings, and cost a machine of two processors 40 % of its handshakes.
		Slots: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
}

// limitedListener hands out what its Listener accepts as *tls.Conn over a *limitedConn, or without a config as a *limitedConn.
type limitedListener struct {
	net.Listener
	gate   *Limiter
	config *tls.Config
}

// Accept does not wait for anything of the client.
func (l *limitedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := l.gate.Take(conn, l.config)
	if c.TLS == nil {
		return c, nil
	}
	return c.TLS, nil
}

// Take makes conn a pending connection. If there are too many it closes the one that has been longest without progress.
func (g *Limiter) Take(conn net.Conn, config *tls.Config) *limitedConn {
	c := &limitedConn{Conn: conn, client: clientOf(conn), gate: g, closed: make(chan struct{})}
	if config != nil {
		c.TLS = tls.Server(c, config)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pending.Len() >= g.Max {
		oldest := g.pending.Remove(g.pending.Front()).(*limitedConn)
		oldest.place = nil
		go oldest.expire()
	}
	c.place = g.pending.PushBack(c)
	c.timer = time.AfterFunc(g.HandshakeTimeout, c.expire)
	return c
}

// forget takes c, which is through or closed, out of the pending connections.
func (g *Limiter) forget(c *limitedConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.timer.Stop()
	if c.place != nil {
		g.pending.Remove(c.place)
		c.place = nil
	}
}

// Progress puts c last in the order in which pending connections are closed. Without it a flood would have those closed
// first that have waited for their turn and now only need the client's last words.
func (g *Limiter) Progress(c *limitedConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.place != nil {
		g.pending.MoveToBack(c.place)
	}
}

// limitedConn is a client's connection, below its TLS if there is any.
type limitedConn struct {
	net.Conn
	client *clientConn // below it; nil: a listener of another kind
	gate   *Limiter
	TLS    *tls.Conn // nil: it is a plain one

	timer *time.Timer   // ends the patience; gate.mu guards it and place
	place *list.Element // in gate.pending, or nil

	closed    chan struct{}
	closeOnce sync.Once
	done      <-chan struct{} // closed at the end of the handshake; nil: no ClientHello yet. Of the goroutine that does the handshake
	through   atomic.Bool     // the handshake has been seen to be complete, or the first byte of a plain connection
	Slot      atomic.Bool     // it has one

	writeMu sync.Mutex
	theirs  time.Time // the deadline for writing that is set from above, or zero
	ours    time.Time // for a write that is under way, or zero
}

// NetConn returns what c is on top of, for clientOf.
func (c *limitedConn) NetConn() net.Conn { return c.Conn }

// expire closes c unless it is through. With TLS HandshakeContext takes care of that, which may take as long as the handshake under
// way takes to notice.
func (c *limitedConn) expire() {
	if c.TLS == nil {
		if !c.through.Load() {
			c.Close()
		}
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c.TLS.HandshakeContext(ctx)
}

// Slots is the limiter of handshakes on connections of gates.
type Slots struct{}

// Acquire is acquireSlot.
func (Slots) Acquire(hello *tls.ClientHelloInfo) error { return acquireSlot(hello) }

// Release is releaseSlot.
func (Slots) Release(conn net.Conn) { releaseSlot(conn) }

// acquireSlot returns when it is the turn of the handshake on conn to be computed. It is for tls.Config.GetConfigForClient, and for the end
// of GetCertificate, see releaseSlot. Connections of other listeners than ours have no limit.
func acquireSlot(hello *tls.ClientHelloInfo) error {
	if c, ok := hello.Conn.(*limitedConn); ok {
		return c.Admit(hello.Context().Done())
	}
	return nil
}

// releaseSlot lets others compute until acquireSlot is called again. It is for tls.Config.GetCertificate, when it may have to wait for a
// certificate.
func releaseSlot(conn net.Conn) {
	if c, ok := conn.(*limitedConn); ok {
		c.leave()
	}
}

// Admit takes a slot, in the order of arrival, unless c has one. It fails when c is closed first. It is called by the goroutine that does the
// handshake, which done tells the end of.
func (c *limitedConn) Admit(done <-chan struct{}) error {
	c.done = done
	if c.Slot.Load() {
		return nil
	}
	select {
	case c.gate.Slots <- struct{}{}:
	case <-c.closed:
		return net.ErrClosed
	}
	c.Slot.Store(true)
	select {
	case <-c.closed: // before the line above, and had nothing to give back
		c.leave()
		return net.ErrClosed
	default:
	}
	c.gate.Progress(c)
	return nil
}

// leave gives the slot back, if c has one.
func (c *limitedConn) leave() {
	if c.Slot.Load() && c.Slot.Swap(false) {
		<-c.gate.Slots
	}
}

// pass takes c out of the pending connections when its handshake is over: one that has failed is closed without another word, so
// whoever reads or writes then is through. It needs no goroutine that waits for that.
func (c *limitedConn) pass() {
	if c.through.Load() {
		return
	}
	select {
	case <-c.done:
		c.through.Store(true)
		c.gate.forget(c)
	default:
	}
}

// Read holds no slot while it waits.
func (c *limitedConn) Read(b []byte) (int, error) {
	c.leave()
	c.pass()
	n, err := c.Conn.Read(b)
	if c.through.Load() {
		return n, err
	}
	if n > 0 && c.client != nil {
		c.client.heard.Store(int64(time.Since(c.client.begun)))
	}
	if c.TLS == nil && n > 0 {
		c.through.Store(true)
		c.gate.forget(c)
	}
	if m := mistakeOf(c, b[:n], err); m != 0 {
		c.gate.report(m, c.client)
	}
	return n, err
}

// Write fails, and closes the connection, when it takes longer than gate.stall: the client does not read. crypto/tls writes record by
// record, and a listener of ours sees to it that room for one is seen as soon as the client has taken some.
func (c *limitedConn) Write(b []byte) (int, error) {
	c.leave()
	c.pass()
	if err := c.arm(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) && c.stalled() {
		if c.client != nil {
			c.client.SetLinger(0) // nobody takes what the kernel still has
		}
		c.Close()
		err = fmt.Errorf("the client has taken nothing for %v: %w", c.gate.stall, err)
	}
	return n, err
}

// arm sees to it that a write that begins now ends in time. Most have little to do: a deadline that leaves somewhat more will do.
func (c *limitedConn) arm() error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	now := time.Now()
	if c.ours.Sub(now) >= c.gate.stall {
		return nil
	}
	c.ours = now.Add(c.gate.stall + c.gate.stall/4)
	return c.setWriteDeadline()
}

// stalled reports whether it was our deadline that has passed, not the one from above.
func (c *limitedConn) stalled() bool {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	return c.theirs.IsZero() || c.ours.Before(c.theirs)
}

// setWriteDeadline sets the earlier of the two deadlines. c.writeMu is held.
func (c *limitedConn) setWriteDeadline() error {
	t := c.theirs
	if t.IsZero() || !c.ours.IsZero() && c.ours.Before(t) {
		t = c.ours
	}
	return c.Conn.SetWriteDeadline(t)
}

// SetWriteDeadline is that of a net.Conn.
func (c *limitedConn) SetWriteDeadline(t time.Time) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.theirs = t
	return c.setWriteDeadline()
}

// SetDeadline is that of a net.Conn.
func (c *limitedConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Close is that of a net.Conn.
func (c *limitedConn) Close() error {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.gate.forget(c)
		c.leave()
	})
	return c.Conn.Close()
}
