package frontend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/notify"
)

const (
	// idleGrace is how long an idle connection stays open, since its client may be sending.
	idleGrace = time.Second

	// silentTimeout bounds the wait for the first byte of a new connection, as in
	// http.Server.Shutdown.
	silentTimeout = 5 * time.Second

	pollInterval   = 2 * time.Millisecond
	reportInterval = time.Second // between log lines about what the drain waits for
)

// drainer takes an http.Server out of service without losing a request. http.Server.Shutdown alone
// loses the requests of connections that wait to be accepted (see Listener). It also loses requests
// that it reads after it was called: it closes such a connection without an answer (conn.serve in
// net/http, Go 1.26). A client cannot safely retry then, since the connection was fresh.
//
// Its methods are safe for concurrent use.
type drainer struct {
	srv    *http.Server
	ln     *Listener
	log    *slog.Logger
	silent time.Duration
	cut    *meter.Counter // what drains have cut
	ending atomic.Bool    // every answer is the last

	mu    sync.Mutex
	conns map[*clientConn]struct{} // that http.Server has
}

// newDrainer puts a drainer around the Handler, the ConnState and the ConnContext of srv. The
// server is to serve ln, or a listener that wraps it, and must not be serving yet.
func newDrainer(srv *http.Server, ln *Listener, log *slog.Logger, silent time.Duration, cut *meter.Counter) *drainer {
	d := &drainer{srv: srv, ln: ln, log: log, silent: silent, cut: cut, conns: make(map[*clientConn]struct{})}
	next, state, connContext := srv.Handler, srv.ConnState, srv.ConnContext
	if next == nil {
		next = http.DefaultServeMux
	}
	srv.Handler = &drainHandler{d, next}
	srv.ConnState = func(c net.Conn, s http.ConnState) {
		d.onState(c, s)
		if state != nil {
			state(c, s)
		}
	}
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if connContext != nil {
			ctx = connContext(ctx, c)
		}
		client := clientOf(c)
		if ctx == nil || client == nil {
			return ctx // net/http reports a nil context
		}
		return context.WithValue(ctx, clientKey{}, client)
	}
	return d
}

// drainHandler is the Handler of the drainer's http.Server.
type drainHandler struct {
	d    *drainer
	next http.Handler
}

// clientKey is the key of a *clientConn in the context of its requests.
type clientKey struct{}

// ServeHTTP implements http.Handler.
func (h *drainHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	client, _ := r.Context().Value(clientKey{}).(*clientConn)
	if client != nil {
		client.requests.Add(1)
		defer client.requests.Add(-1)
	}
	if h.d.ending.Load() || client != nil && client.leaving.Load() {
		w.Header().Set("Connection", "close") // over HTTP/2 this sends GOAWAY
	}
	h.next.ServeHTTP(w, r)
}

// onState is called by http.Server when a connection changes its state.
func (d *drainer) onState(c net.Conn, s http.ConnState) {
	client := clientOf(c)
	if client == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch s {
	case http.StateNew:
		client.top, client.phase = c, phaseFresh
		d.conns[client] = struct{}{}
	case http.StateActive:
		client.phase = phaseActive
	case http.StateIdle:
		client.phase, client.since = phaseIdle, time.Now()
	default:
		client.phase = 0
		delete(d.conns, client)
	}
}

// announce makes every answer from now on the last of its connection, so that clients come back
// through the balancer. New connections are still accepted.
func (d *drainer) announce() { d.ending.Store(true) }

// drain is Port.Drain.
func (d *drainer) drain(ctx context.Context) error {
	d.announce()
	lost := d.ln.drain(ctx)
	if errors.Is(lost, os.ErrPermission) {
		d.log.Warn("draining: connections of the last moment may be reset; with CAP_NET_ADMIN none would be", "addr", d.ln.Addr(), "error", lost)
		lost = nil
	}
	if d.ln.isResting() {
		// The socket must go before a dropped SYN is repeated, so that the client is refused then.
		// Accept itself rests until Shutdown.
		d.ln.socket.Close()
	}
	begun := time.Now()
	d.await(ctx, func() bool { return !d.busy() && !d.freshlyIdle(begun) }, func() {
		requests, silent := d.outstanding()
		d.log.Info(fmt.Sprintf("draining: %d requests under way", requests), "without request", silent)
	})
	requests, silent := d.outstanding() // before Shutdown, which does not wait if ctx has ended
	err := d.srv.Shutdown(ctx)
	if err != nil {
		d.srv.Close()
		d.cut.Add(uint64(requests + silent))
		err = fmt.Errorf("%d requests were cut, and %d connections without a request: %w", requests, silent, err)
	}
	return errors.Join(lost, err)
}

// drainAddr is Server.DrainAddr for one port. addr is a plain address.
func (d *drainer) drainAddr(ctx context.Context, addr netip.Addr) (cut int) {
	d.ln.setLeaving(addr, true)
	defer d.ln.setLeaving(addr, false)
	d.ln.awaitAccepted(context.WithoutCancel(ctx))
	clients := d.ln.clients(addr)
	var closing sync.WaitGroup
	defer closing.Wait()
	begun := time.Now()
	requests := 0
	closeSome := func() (done bool) {
		over := ctx.Err() != nil
		requests = 0
		clients = slices.DeleteFunc(clients, func(c *clientConn) bool {
			n, top, wait := d.pending(c, begun)
			if wait && !over {
				requests += n
				return false
			}
			cut += n
			closing.Go(func() {
				if top != nil && !over {
					top.Close() // TLS sends an alert, which takes seconds if the client does not read
				}
				c.Close()
			})
			return true
		})
		return len(clients) == 0
	}
	d.await(ctx, closeSome, func() {
		d.log.Info(fmt.Sprintf("draining: %d requests under way", requests), "address", addr, "connections", len(clients))
	})
	closeSome() // those that are left when ctx ends
	d.cut.Add(uint64(cut))
	return cut
}

// await polls until done returns true or ctx has ended, and calls report now and then.
func (d *drainer) await(ctx context.Context, done func() bool, report func()) {
	due := time.Now().Add(reportInterval)
	notify.Loop(ctx, func() (next time.Time, over bool) {
		if done() {
			return time.Time{}, true
		}
		now := time.Now()
		if !now.Before(due) {
			report()
			due = now.Add(reportInterval)
		}
		return now.Add(pollInterval), false
	})
}

// isDue reports whether c has a request without an answer, or may be about to send its first one.
// d.mu is held.
func (d *drainer) isDue(c *clientConn) bool {
	silent := time.Since(c.begun) - time.Duration(c.progress.Load())
	return c.phase == phaseActive || c.phase == phaseFresh && silent < d.silent
}

// busy reports whether an answer is due on some connection.
func (d *drainer) busy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.conns {
		if d.isDue(c) {
			return true
		}
	}
	return false
}

// freshlyIdle reports whether some connection has not been idle for long, in a drain that began at
// begun. Shutdown closes idle connections at once, and a client that is just sending then would
// have to send again. A client that has seen its last answer does not send.
func (d *drainer) freshlyIdle(begun time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.conns {
		if c.phase == phaseIdle && idleFor(c.since, begun) < idleGrace {
			return true
		}
	}
	return false
}

// idleFor returns for how long a connection has been idle during a drain. Its last answer may have
// begun before the drain, and then does not say that it is the last.
func idleFor(since, begun time.Time) time.Duration {
	if since.After(begun) {
		begun = since
	}
	return time.Since(begun)
}

// outstanding returns how many requests have no answer yet, and how many new connections have not
// sent a request.
func (d *drainer) outstanding() (requests, silent int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.conns {
		if c.phase == phaseActive {
			requests += c.pendingRequests()
		} else if d.isDue(c) {
			silent++
		}
	}
	return requests, silent
}

// pending returns how many requests of c have no answer yet, what http.Server has of c, and whether
// a drain that began at begun waits for c.
func (d *drainer) pending(c *clientConn, begun time.Time) (requests int, top net.Conn, wait bool) {
	if c.closed.Load() {
		return 0, nil, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isDue(c) {
		if c.phase == phaseActive {
			requests = c.pendingRequests()
		}
		return requests, c.top, true
	}
	since := begun
	if c.phase == phaseIdle {
		since = c.since
	}
	return 0, c.top, idleFor(since, begun) < idleGrace
}
