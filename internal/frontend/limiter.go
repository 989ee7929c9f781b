package frontend

import (
	"container/list"
	"crypto/tls"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"time"
)

const (
	// handshakeTimeout bounds the PROXY header and the TLS handshake together. On a plain port it
	// bounds the wait for the first byte.
	handshakeTimeout = 10 * time.Second

	// stallTimeout bounds the time in which a client takes one write: a TLS record, 16 KiB.
	stallTimeout = 30 * time.Second

	maxPending = 16384 // pending connections
)

// limits are what a limiter allows.
type limits struct {
	handshakeTimeout, stallTimeout time.Duration
	maxPending                     int // pending connections
	slots                          int // handshakes that are computed at once
}

// defaultLimits returns the limits for this process.
func defaultLimits() limits {
	return limits{
		handshakeTimeout: handshakeTimeout, stallTimeout: stallTimeout,
		// Most descriptors are for established connections, and some for raft and files.
		maxPending: max(1, min(maxPending, openFiles()/4)),
		// One slot for each processor. With more, requests wait longer and no handshake ends sooner.
		// With one fewer, requests do not wait at all, since the runtime always polls the network
		// at once. But a machine with two processors loses 40 % of its handshakes.
		slots: runtime.GOMAXPROCS(0),
	}
}

// limiter bounds the pending connections of a node's clients, in number and in time, and the
// handshakes that are computed at once. A connection is pending until its TLS handshake is
// complete, or until its first byte on a plain port. So neither silent clients nor a flood of
// handshakes keep others out. On an established connection the limiter only looks for writes that
// the client does not take. Its methods are safe for concurrent use.
//
// Accept returns a connection before its handshake, so that the http.Server knows it and a drain
// counts it. The limiter closes connections and sets no read deadlines: those belong to the
// http.Server, and neither undoes the other.
type limiter struct {
	limits   limits
	mistakes *proxyMistakes
	counts   *counts
	// one value for each handshake between ClientHello and answer, which is nearly all of its cost
	slots chan struct{}

	mu      sync.Mutex
	pending list.List // of *limitedConn; the one without progress for longest is in front
}

func newLimiter(log *slog.Logger, limits limits) *limiter {
	counts := newCounts()
	return &limiter{
		limits: limits, mistakes: newProxyMistakes(log, counts), counts: counts, slots: make(chan struct{}, limits.slots),
	}
}

// limitedListener wraps a Listener. Its connections are *tls.Conn over *limitedConn, or without a
// config *limitedConn.
type limitedListener struct {
	net.Listener
	limiter *limiter
	config  *tls.Config
}

// Accept does not wait for the client.
func (l *limitedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := l.limiter.add(conn, l.config)
	if c.tls == nil {
		return c, nil
	}
	return c.tls, nil
}

// add makes conn a pending connection. If there are too many, it closes the one that has been
// without progress for longest.
func (l *limiter) add(conn net.Conn, config *tls.Config) *limitedConn {
	c := &limitedConn{
		Conn: conn, client: clientOf(conn), limiter: l, accepted: time.Now(), closed: make(chan struct{}),
	}
	l.counts.Connections.Add(1)
	if config != nil {
		c.tls = tls.Server(c, config)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending.Len() >= l.limits.maxPending {
		oldest := l.pending.Remove(l.pending.Front()).(*limitedConn)
		oldest.place = nil
		l.counts.limit.Inc()
		go oldest.expire(endLimit)
	}
	c.place = l.pending.PushBack(c)
	c.timer = time.AfterFunc(l.limits.handshakeTimeout, func() { c.expire(endTimeout) })
	return c
}

// remove takes c, which is established or closed, off the pending connections.
func (l *limiter) remove(c *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.timer.Stop()
	if c.place != nil {
		l.pending.Remove(c.place)
		c.place = nil
	}
}

// progress makes c the last pending connection to be closed. Otherwise a flood would first close
// the connections that have waited for a slot and now only need the client's last message.
func (l *limiter) progress(c *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.place != nil {
		l.pending.MoveToBack(c.place)
	}
}
