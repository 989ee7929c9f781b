package frontend

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// limitedConn is a client's connection under a limiter, below TLS if there is any.
type limitedConn struct {
	net.Conn
	client   *clientConn // below Conn; nil: the listener is not a Listener
	limiter  *limiter
	tls      *tls.Conn // on top; nil: a plain connection
	accepted time.Time

	// The mutex of the limiter guards these.
	timer *time.Timer   // ends the handshake timeout
	place *list.Element // in limiter.pending, or nil

	// Only the goroutine of the handshake uses it. It is closed at the end of the handshake; nil: no
	// ClientHello yet.
	done <-chan struct{}

	closed    chan struct{}
	closeOnce sync.Once
	// the handshake is known to be complete, or a plain connection has sent a byte
	established atomic.Bool
	slot        atomic.Bool  // it has one
	heard       atomic.Int64 // when its first byte came, as a time.Duration since accepted, or 0
	end         atomic.Int32 // an ending: why the handshake will not be complete

	writeMu sync.Mutex
	theirs  time.Time // the write deadline that is set from above, or zero
	ours    time.Time // the deadline for a write under way, or zero
}

// NetConn returns the connection below c, for clientOf.
func (c *limitedConn) NetConn() net.Conn { return c.Conn }

// expire closes c unless it is established. With TLS, HandshakeContext does that. It returns when
// the handshake under way notices. why is counted.
func (c *limitedConn) expire(why ending) {
	if c.tls == nil {
		if c.established.Load() {
			return
		}
		if why == endTimeout {
			c.limiter.counts.silent.Inc()
		}
		c.Close()
		return
	}
	c.endBecause(why)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c.tls.HandshakeContext(ctx)
}

// Slots bounds the handshakes that are computed at once. It is for code that makes a tls.Config for
// Server.Wrap. It has no effect on other connections. The zero value is ready.
type Slots struct{}

// Acquire waits until the handshake of hello may be computed. tls.Config.GetConfigForClient calls
// it, and GetCertificate calls it at its end if it has called Release. It returns net.ErrClosed
// when the connection is closed first.
func (Slots) Acquire(hello *tls.ClientHelloInfo) error {
	if c, ok := hello.Conn.(*limitedConn); ok {
		return c.acquire(hello.Context().Done())
	}
	return nil
}

// Refuse records that the handshake on conn fails because there is no certificate for it. Callbacks
// of a tls.Config call it before they return the error.
func (Slots) Refuse(conn net.Conn) {
	if c, ok := conn.(*limitedConn); ok {
		c.endBecause(endNoCertificate)
	}
}

// Release gives the slot to other handshakes until Acquire is called again. Callbacks of a
// tls.Config call it before they wait, such as for a certificate.
func (Slots) Release(conn net.Conn) {
	if c, ok := conn.(*limitedConn); ok {
		c.release()
	}
}

// acquire takes a slot, in the order of arrival, unless c has one. It fails when c is closed first.
// The goroutine of the handshake calls it. done is closed when the handshake ends.
func (c *limitedConn) acquire(done <-chan struct{}) error {
	c.done = done
	if c.slot.Load() {
		return nil
	}
	select {
	case c.limiter.slots <- struct{}{}: // as nearly always
		c.limiter.counts.HandshakeWait.Observe(0)
	default:
		began := time.Now()
		select {
		case c.limiter.slots <- struct{}{}:
		case <-c.closed:
			return net.ErrClosed
		}
		c.limiter.counts.HandshakeWait.Observe(time.Since(began))
	}
	c.slot.Store(true)
	select {
	case <-c.closed: // Close may have come before the line above, when there was no slot to give back
		c.release()
		return net.ErrClosed
	default:
	}
	c.limiter.progress(c)
	return nil
}

// release gives the slot back, if c has one.
func (c *limitedConn) release() {
	if c.slot.Load() && c.slot.Swap(false) {
		<-c.limiter.slots
	}
}

// checkHandshake takes c off the pending connections when its handshake is over. A failed handshake
// closes the connection without further reads or writes, so a read or write after the end means
// success, unless the context of the handshake has ended before. This saves a goroutine that waits
// for the end.
func (c *limitedConn) checkHandshake() {
	if c.established.Load() {
		return
	}
	select {
	case <-c.done:
		if !c.limiter.counts.isIncomplete(c.tls) {
			c.establish()
		}
	default:
	}
}

func (c *limitedConn) establish() {
	if c.established.Swap(true) {
		return
	}
	c.limiter.remove(c)
	if c.tls != nil {
		c.limiter.counts.complete(c.tls, time.Since(c.accepted)-time.Duration(c.heard.Load()))
	}
}

// endBecause records why the handshake will not be complete. The first reason counts.
func (c *limitedConn) endBecause(why ending) { c.end.CompareAndSwap(0, int32(why)) }

// countEnd counts the handshake of a connection that is being closed, unless it is complete.
func (c *limitedConn) countEnd() {
	if c.tls == nil || c.established.Load() {
		return
	}
	why := ending(c.end.Load())
	if why == endFailed && c.heard.Load() == 0 && (c.client == nil || !c.client.spoke.Load()) {
		why = endSilent
	}
	c.limiter.counts.ended[why].Inc()
}

// Read holds no slot while it waits.
func (c *limitedConn) Read(b []byte) (int, error) {
	c.release()
	c.checkHandshake()
	n, err := c.Conn.Read(b)
	if c.established.Load() {
		return n, err
	}
	if n > 0 {
		c.hear()
	}
	if c.tls == nil && n > 0 {
		c.establish()
	}
	c.limiter.mistakes.check(c.client, b[:n], err)
	return n, err
}

// hear records progress of the handshake.
func (c *limitedConn) hear() {
	now := time.Now()
	if c.heard.Load() == 0 {
		c.heard.Store(max(1, int64(now.Sub(c.accepted))))
	}
	if c.client != nil {
		c.client.progress.Store(int64(now.Sub(c.client.begun)))
	}
}

// Write fails and closes the connection when it takes longer than the stall timeout: the client
// does not read. crypto/tls writes record by record, and wakeWriters makes the kernel report room
// for a record as soon as the client has taken some.
func (c *limitedConn) Write(b []byte) (int, error) {
	c.release()
	c.checkHandshake()
	if err := c.armWrite(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) && c.stalled() {
		if c.client != nil {
			c.client.abandon() // nobody takes what the kernel still has
		}
		c.limiter.counts.stalled.Inc()
		c.Close()
		err = fmt.Errorf("the client has taken nothing for %v: %w", c.limiter.limits.stallTimeout, err)
	}
	return n, err
}

// armWrite makes a write that begins now end in time. It sets a somewhat later deadline than
// needed, so that most writes do not have to set one.
func (c *limitedConn) armWrite() error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	now, stall := time.Now(), c.limiter.limits.stallTimeout
	if c.ours.Sub(now) >= stall {
		return nil
	}
	c.ours = now.Add(stall + stall/4)
	return c.setWriteDeadline()
}

// stalled reports whether the deadline that has passed is ours, and not the one from above.
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

// SetWriteDeadline implements net.Conn.
func (c *limitedConn) SetWriteDeadline(t time.Time) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.theirs = t
	return c.setWriteDeadline()
}

// SetDeadline implements net.Conn.
func (c *limitedConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.limiter.counts.Connections.Add(-1)
		c.countEnd()
		c.limiter.remove(c)
		c.release()
	})
	return c.Conn.Close()
}
