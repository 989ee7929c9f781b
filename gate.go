package flotilla

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	gatePatience = 10 * time.Second // for a connection's PROXY header and TLS handshake together
	gateStall    = 30 * time.Second // for a write without any progress
	gateLooks    = 6                // looks at a write within gateStall
	gatePending  = 16384            // connections without a complete handshake, at most
)

// gate is what a node's clients must pass: it bounds the connections that have not completed their TLS handshake, in number and in time, and the
// handshakes that are computed at once, so that neither silent clients nor a flood of handshakes keep others out. Once
// a connection is through, the gate looks only for writes that the client does not take. Its methods are safe for concurrent use.
//
// A connection leaves Accept before its handshake, so that the server on top knows it, and counts it when it drains. The limits
// close connections and set no deadlines for reading: those are the server's, and neither undoes the other.
type gate struct {
	patience, stall time.Duration
	max             int // pending connections

	// Slots for goroutines that compute a handshake: from the ClientHello to the first wait for something, and from there to the end. They
	// are apart so that those who have waited in line once need not wait behind the rest of it again.
	first, later chan struct{}

	mu      sync.Mutex
	pending list.List // of *gatedConn; the one that has been longest without progress is in front
}

func newGate() *gate {
	slots := runtime.GOMAXPROCS(0)
	return &gate{
		patience: gatePatience, stall: gateStall,
		// Of the descriptors most are for those who are through, and some for raft and files.
		max:   max(1, min(gatePending, openFiles()/4)),
		first: make(chan struct{}, slots), later: make(chan struct{}, slots),
	}
}

// gateListener hands out what its Listener accepts as *tls.Conn, over a *gatedConn.
type gateListener struct {
	net.Listener
	gate   *gate
	config *tls.Config
}

// Accept does not wait for anything of the client.
func (l *gateListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.gate.take(conn, l.config), nil
}

// take makes conn a pending connection. If there are too many it closes the one that has been longest without progress.
func (g *gate) take(conn net.Conn, config *tls.Config) *tls.Conn {
	c := &gatedConn{Conn: conn, gate: g, closed: make(chan struct{})}
	c.tls = tls.Server(c, config)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pending.Len() >= g.max {
		oldest := g.pending.Remove(g.pending.Front()).(*gatedConn)
		oldest.place = nil
		go oldest.expire()
	}
	c.place = g.pending.PushBack(c)
	c.timer = time.AfterFunc(g.patience, c.expire)
	return c.tls
}

// forget takes c, which is through or closed, out of the pending connections.
func (g *gate) forget(c *gatedConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.timer.Stop()
	if c.place != nil {
		g.pending.Remove(c.place)
		c.place = nil
	}
}

// progress puts c last in the order in which pending connections are closed. Without it a flood would have those closed
// first that have waited for their turn and now only need the client's last words.
func (g *gate) progress(c *gatedConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.place != nil {
		g.pending.MoveToBack(c.place)
	}
}

// gatedConn is a client's connection, below its TLS.
type gatedConn struct {
	net.Conn
	gate *gate
	tls  *tls.Conn

	timer *time.Timer   // ends the patience; gate.mu guards it and place
	place *list.Element // in gate.pending, or nil

	closed    chan struct{}
	closeOnce sync.Once
	shaking   atomic.Bool  // between the ClientHello and the end of the handshake
	slot      atomic.Int32 // what it holds: noSlot, firstSlot or laterSlot

	writeMu sync.Mutex
	theirs  time.Time // the deadline for writing that is set from above, or zero
	armed   time.Time // when ours was last set, or zero
}

const (
	noSlot = iota
	firstSlot
	laterSlot
)

// NetConn returns what c is on top of, for clientOf.
func (c *gatedConn) NetConn() net.Conn { return c.Conn }

// expire closes c unless its handshake is complete, of which HandshakeContext takes care. It may take as long as the
// handshake under way takes to notice.
func (c *gatedConn) expire() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c.tls.HandshakeContext(ctx)
}

// takeTurn returns when it is the turn of the handshake on conn to be computed. It is for tls.Config.GetConfigForClient, and for the end
// of GetCertificate, see stepAside. Connections of other listeners than ours have no limit.
func takeTurn(conn net.Conn) error {
	if c, ok := conn.(*gatedConn); ok {
		return c.admit()
	}
	return nil
}

// stepAside lets others compute until takeTurn is called again. It is for tls.Config.GetCertificate, which may have to wait for a
// certificate.
func stepAside(conn net.Conn) {
	if c, ok := conn.(*gatedConn); ok {
		c.leave()
	}
}

// admit takes a slot, in the order of arrival. It is called by the goroutine that does the handshake.
func (c *gatedConn) admit() error {
	if c.shaking.Swap(true) {
		return c.enter(laterSlot)
	}
	go func() {
		// It waits for the goroutine that is here now, and so learns of the end of the handshake, which is shown nowhere else.
		if c.tls.Handshake() == nil {
			c.gate.forget(c)
		}
		c.shaking.Store(false)
		c.leave()
	}()
	if err := c.enter(firstSlot); err != nil {
		return err
	}
	c.gate.progress(c)
	return nil
}

// enter takes a slot, unless c has one. It fails when c is closed first.
func (c *gatedConn) enter(slot int32) error {
	if c.slot.Load() != noSlot {
		return nil
	}
	select {
	case c.gate.slots(slot) <- struct{}{}:
	case <-c.closed:
		return net.ErrClosed
	}
	c.slot.Store(slot)
	// Whoever closed c, or ended the handshake, before the line above has found nothing to give back.
	select {
	case <-c.closed:
		c.leave()
		return net.ErrClosed
	default:
	}
	if !c.shaking.Load() {
		c.leave()
	}
	return nil
}

// leave gives the slot back, if c has one.
func (c *gatedConn) leave() {
	if slot := c.slot.Swap(noSlot); slot != noSlot {
		<-c.gate.slots(slot)
	}
}

func (g *gate) slots(slot int32) chan struct{} {
	if slot == firstSlot {
		return g.first
	}
	return g.later
}

// Read holds no slot while it waits.
func (c *gatedConn) Read(b []byte) (int, error) {
	if !c.shaking.Load() {
		return c.Conn.Read(b)
	}
	c.leave()
	n, err := c.Conn.Read(b)
	if err == nil && c.shaking.Load() {
		err = c.enter(laterSlot)
	}
	return n, err
}

// Write fails, and closes the connection, when there is no progress for gate.stall: the client does not read. It takes as long
// as it must while there is.
func (c *gatedConn) Write(b []byte) (n int, err error) {
	if c.shaking.Load() {
		c.leave()
	}
	now := time.Now()
	moved, queue := now, 0 // the time of the last progress seen, and what the kernel had left to send
	for {
		if err := c.arm(now); err != nil {
			return n, err
		}
		m, err := c.Conn.Write(b[n:])
		n += m
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		now = time.Now()
		if c.overdue(now) {
			return n, err
		}
		// The kernel may wake a writer only when a third of its buffer is free, which can be megabytes: what counts is what the client has taken.
		left := unsent(c.Conn)
		if m > 0 || left < queue {
			moved = now
		}
		queue = left
		if now.Sub(moved) >= c.gate.stall {
			if tcp := clientOf(c); tcp != nil {
				tcp.SetLinger(0) // nobody takes what the kernel still has
			}
			c.Close()
			return n, fmt.Errorf("the client has taken nothing for %v: %w", c.gate.stall, os.ErrDeadlineExceeded)
		}
	}
}

// arm sees to it that a write that begins now is looked at in time. Most have little to do: a deadline somewhat older will do.
func (c *gatedConn) arm(now time.Time) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if look := c.gate.stall / gateLooks; now.Sub(c.armed) < look/4 {
		return nil
	}
	c.armed = now
	return c.setWriteDeadline()
}

// overdue reports whether the deadline from above has passed.
func (c *gatedConn) overdue(now time.Time) bool {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	return !c.theirs.IsZero() && !now.Before(c.theirs)
}

// setWriteDeadline sets the earlier of the two deadlines. c.writeMu is held.
func (c *gatedConn) setWriteDeadline() error {
	t := c.theirs
	if look := c.armed.Add(c.gate.stall / gateLooks); !c.armed.IsZero() && (t.IsZero() || look.Before(t)) {
		t = look
	}
	return c.Conn.SetWriteDeadline(t)
}

// SetWriteDeadline is that of a net.Conn.
func (c *gatedConn) SetWriteDeadline(t time.Time) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.theirs = t
	return c.setWriteDeadline()
}

// SetDeadline is that of a net.Conn.
func (c *gatedConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Close is that of a net.Conn.
func (c *gatedConn) Close() error {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.gate.forget(c)
		c.leave()
	})
	return c.Conn.Close()
}
