package simnet

import (
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"
)

// kind is the kind of a packet.
type kind int

const (
	data  kind = iota
	fin        // nothing follows: io.EOF
	reset      // the connection is no more: syscall.ECONNRESET
)

// packet is sent by one Write or Close.
type packet struct {
	kind   kind
	data   []byte
	at     time.Time // of arrival
	held   bool      // sent into a cut path: it arrives after that is mended
	unsent bool      // by a host that stands still: it is sent when that goes on
}

// stream is one direction of a connection. The network's mutex guards it.
type stream struct {
	net     *Network
	path    path
	back    *stream  // the other direction
	queue   []packet // sent and not read, in order; those that wait come last, and a reset ends it
	cut     bool     // the path is cut
	frozen  bool     // the sender stands still
	shut    bool     // a fin or a reset was sent: only a reset may follow
	closed  bool     // the receiving end is closed
	lost    bool     // sent into a cut path to a closed receiving end
	changed signal   // for the reader
}

// send sends a packet, which arrives after a delay.
func (s *stream) send(p packet, delay time.Duration) {
	if n := len(s.queue); n > 0 && s.queue[n-1].kind == reset || s.shut && p.kind != reset {
		return
	}
	s.shut = s.shut || p.kind != data
	if s.closed {
		if p.kind == data && s.cut {
			s.lost = true
		} else if p.kind == data {
			s.refuse()
		}
		return
	}
	p.unsent = s.frozen
	p.held = s.cut && !s.frozen
	s.queue = append(s.queue, p)
	s.carry(len(s.queue)-1, time.Now().Add(delay))
	s.changed.broadcast()
}

// carry sets when a packet of the queue arrives that is sent now. A shorter latency lets it not
// overtake the one before.
func (s *stream) carry(i int, now time.Time) {
	p := &s.queue[i]
	if p.waits() {
		return // it is not on its way
	}
	p.at = s.net.arrival(s.path, len(p.data), now)
	if i > 0 && s.queue[i-1].at.After(p.at) {
		p.at = s.queue[i-1].at
	}
}

// waits reports whether a packet is not on its way.
func (p *packet) waits() bool { return p.held || p.unsent }

// refuse answers what arrives one latency from now at a closed receiving end.
func (s *stream) refuse() { s.back.send(packet{kind: reset}, s.net.latencyOf(s.path)) }

// setCut holds the packets on their way when the path is cut, and sends them again when it is
// mended.
func (s *stream) setCut(cut bool, now time.Time) {
	if cut == s.cut {
		return
	}
	s.cut = cut
	for i := range s.queue {
		p := &s.queue[i]
		if cut {
			p.held = !p.unsent && p.at.After(now)
		} else if p.held {
			p.held = false
			s.carry(i, now)
		}
	}
	if !cut && s.lost {
		s.lost = false
		s.refuse()
	}
	s.changed.broadcast()
}

// setFrozen keeps back what the sender sends from now on, or sends it.
func (s *stream) setFrozen(frozen bool, now time.Time) {
	s.frozen = frozen
	for i := range s.queue {
		if p := &s.queue[i]; !frozen && p.unsent {
			p.unsent, p.held = false, s.cut
			s.carry(i, now)
		}
	}
	s.changed.broadcast()
}

// forget drops what the sender has not sent.
func (s *stream) forget() {
	s.queue = slices.DeleteFunc(s.queue, func(p packet) bool { return p.unsent })
}

// arrived returns true if the first packet of the stream has arrived.
func (s *stream) arrived(now time.Time) bool {
	return len(s.queue) > 0 && !s.queue[0].waits() && !s.queue[0].at.After(now)
}

// wasReset returns true if a reset has arrived, with or without bytes before it.
func (s *stream) wasReset(now time.Time) bool {
	n := len(s.queue)
	return n > 0 && s.queue[n-1].kind == reset && !s.queue[n-1].waits() && !s.queue[n-1].at.After(now)
}

// link is a connection: two ends. It is in the network's list until both are closed.
type link struct{ ends [2]*conn }

// conn is one end of a connection. It implements net.Conn. Any goroutine may call its methods.
type conn struct {
	host          *Host
	link          *link
	peer          *conn
	local, remote addr

	// Guarded by host.net.mu.
	in                          *stream // from the peer
	readDeadline, writeDeadline time.Time
}

// connect makes a connection between two hosts. The caller holds the lock.
func (n *Network) connect(a *Host, aAddr addr, b *Host, bAddr addr) (near, far *conn) {
	l := new(link)
	near = &conn{host: a, link: l, local: aAddr, remote: bAddr, in: n.stream(b, a)}
	far = &conn{host: b, link: l, local: bAddr, remote: aAddr, in: n.stream(a, b)}
	near.peer, far.peer = far, near
	near.in.back, far.in.back = far.in, near.in
	l.ends = [2]*conn{near, far}
	n.links[l] = struct{}{}
	return near, far
}

func (n *Network) stream(from, to *Host) *stream {
	return &stream{net: n, path: path{from.name, to.name}, cut: n.cut(from.name, to.name), frozen: from.frozen}
}

func (c *conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// Read waits for bytes. Bytes that arrived before the end of the connection come first, then io.EOF
// or syscall.ECONNRESET.
func (c *conn) Read(p []byte) (int, error) {
	mu := &c.host.net.mu
	mu.Lock()
	defer mu.Unlock()
	for {
		now := time.Now()
		if c.in.closed {
			return 0, c.fail("read", net.ErrClosed)
		}
		if c.host.frozen {
			wake := c.in.changed.wait()
			mu.Unlock()
			<-wake
			mu.Lock()
			continue
		}
		if expired(c.readDeadline, now) {
			return 0, c.fail("read", os.ErrDeadlineExceeded)
		}
		if len(p) == 0 {
			return 0, nil
		}
		if c.in.arrived(now) {
			return c.take(p, now)
		}
		next := c.readDeadline
		if len(c.in.queue) > 0 && !c.in.queue[0].waits() && (next.IsZero() || c.in.queue[0].at.Before(next)) {
			next = c.in.queue[0].at
		}
		wake := c.in.changed.wait()
		mu.Unlock()
		waitUntil(wake, next, now)
		mu.Lock()
	}
}

// take reads from what has arrived. Something must have.
func (c *conn) take(p []byte, now time.Time) (n int, err error) {
	s := c.in
	switch s.queue[0].kind {
	case fin:
		// It stays in the queue: the next Read finds it again, unless a reset came after it.
		if s.wasReset(now) {
			return 0, c.fail("read", os.NewSyscallError("read", syscall.ECONNRESET))
		}
		return 0, io.EOF
	case reset:
		return 0, c.fail("read", os.NewSyscallError("read", syscall.ECONNRESET))
	}
	for n < len(p) && s.arrived(now) && s.queue[0].kind == data {
		m := copy(p[n:], s.queue[0].data)
		n += m
		if s.queue[0].data = s.queue[0].data[m:]; len(s.queue[0].data) == 0 {
			s.queue[0] = packet{}
			s.queue = s.queue[1:]
		}
	}
	return n, nil
}

// waitUntil returns when wake is closed, or at the time next, unless that is zero.
func waitUntil(wake <-chan struct{}, next, now time.Time) {
	if next.IsZero() {
		<-wake
		return
	}
	t := time.NewTimer(next.Sub(now))
	defer t.Stop()
	select {
	case <-wake:
	case <-t.C:
	}
}

func expired(deadline, now time.Time) bool { return !deadline.IsZero() && !now.Before(deadline) }

// Write sends a copy of p. It never waits.
func (c *conn) Write(p []byte) (int, error) {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	now, out := time.Now(), c.peer.in
	switch {
	case c.in.closed:
		return 0, c.fail("write", net.ErrClosed)
	case expired(c.writeDeadline, now):
		return 0, c.fail("write", os.ErrDeadlineExceeded)
	case c.in.wasReset(now):
		return 0, c.fail("write", os.NewSyscallError("write", syscall.ECONNRESET))
	case out.shut:
		return 0, c.fail("write", os.NewSyscallError("write", syscall.EPIPE))
	case len(p) == 0:
		return 0, nil
	}
	out.send(packet{kind: data, data: slices.Clone(p)}, 0)
	return len(p), nil
}

// Close ends the connection in both directions. The peer reads what was sent, then io.EOF. Whatever
// the peer sends is answered by a reset.
func (c *conn) Close() error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.in.closed {
		return c.fail("close", net.ErrClosed)
	}
	c.end(fin)
	return nil
}

// CloseWrite ends the direction to the peer. The peer reads what was sent, then io.EOF. This end
// may still read.
func (c *conn) CloseWrite() error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.in.closed {
		return c.fail("close", net.ErrClosed)
	}
	c.peer.in.send(packet{kind: fin}, 0)
	return nil
}

// end closes this end of the connection, with a fin or a reset for the peer. The caller holds the
// lock.
func (c *conn) end(k kind) {
	if c.in.closed {
		return
	}
	c.in.closed, c.in.queue = true, nil
	c.in.changed.broadcast()
	c.peer.in.send(packet{kind: k}, 0)
	if c.peer.in.closed {
		delete(c.host.net.links, c.link)
	}
}

// LocalAddr returns the name and the port of this end.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the name and the port of the other end.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines.
func (c *conn) SetDeadline(t time.Time) error {
	return c.setDeadlines(t, &c.readDeadline, &c.writeDeadline)
}

// SetReadDeadline sets the time at which Read fails with os.ErrDeadlineExceeded, also a Read that
// waits already. The zero time means never.
func (c *conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(t, &c.readDeadline) }

// SetWriteDeadline sets the time from which Write fails with os.ErrDeadlineExceeded. The zero time
// means never.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, &c.writeDeadline) }

func (c *conn) setDeadlines(t time.Time, which ...*time.Time) error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.in.closed {
		return c.fail("set", net.ErrClosed)
	}
	for _, d := range which {
		*d = t
	}
	c.in.changed.broadcast()
	return nil
}
