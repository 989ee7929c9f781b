package flotilla

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	drainTimeout = 500 * time.Millisecond // shorter than the second after which a client repeats a lost SYN
	idleGrace    = time.Second            // for clients with a connection at rest, which may be sending at this moment
	silentAfter  = 5 * time.Second        // a new connection without a request is nobody's, as for http.Server.Shutdown
)

// drainer takes an http.Server out of service without losing a request. http.Server.Shutdown by itself loses those of
// connections that wait to be accepted (see drainListener), and those that are first read after it was called: such a connection
// is closed without an answer (conn.serve in net/http, Go 1.26), and since it was fresh, no client may assume that a retry
// is safe. Its methods are safe for concurrent use.
type drainer struct {
	srv    *http.Server
	ending atomic.Bool

	mu   sync.Mutex
	idle map[net.Conn]struct{}  // connections at rest between two requests
	due  map[net.Conn]time.Time // connections on which an answer is due: those accepted, with the time, and those with a request, with zero
}

// newDrainer puts itself into srv, which must not be serving yet: around its Handler and its ConnState.
func newDrainer(srv *http.Server) *drainer {
	d := &drainer{srv: srv, due: map[net.Conn]time.Time{}, idle: map[net.Conn]struct{}{}}
	next, hook := srv.Handler, srv.ConnState
	if next == nil {
		next = http.DefaultServeMux
	}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.ending.Load() {
			w.Header().Set("Connection", "close") // over HTTP/2 this sends GOAWAY
		}
		next.ServeHTTP(w, r)
	})
	srv.ConnState = func(c net.Conn, s http.ConnState) {
		d.note(c, s)
		if hook != nil {
			hook(c, s)
		}
	}
	return d
}

func (d *drainer) note(c net.Conn, s http.ConnState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.idle, c)
	switch s {
	case http.StateIdle:
		d.idle[c] = struct{}{}
		delete(d.due, c)
	case http.StateNew:
		d.due[c] = time.Now()
	case http.StateActive:
		d.due[c] = time.Time{}
	default:
		delete(d.due, c)
	}
}

// busy reports whether an answer is due on some connection.
func (d *drainer) busy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, since := range d.due {
		if since.IsZero() || time.Since(since) < silentAfter {
			return true
		}
	}
	return false
}

// resting reports whether a connection is at rest. Shutdown closes these at once, and a client that sends on one just then has to
// send again; told by an answer that it was the last, it does not.
func (d *drainer) resting() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.idle) > 0
}

// announce makes every response from now on the last of its connection, so that clients come back through the balancer. New
// connections are accepted as before. It is for the time between the node's not being ready and end.
func (d *drainer) announce() { d.ending.Store(true) }

// end drains the listeners that the server serves, waits until every request has its answer, and shuts the server down. When ctx
// ends first it closes the server, with the requests it has, and returns an error. An error from a listener means that a connection may have been lost; the
// server has been shut down all the same.
func (d *drainer) end(ctx context.Context, lns ...*drainListener) error {
	d.announce()
	errs := make([]error, len(lns), len(lns)+1)
	var all sync.WaitGroup
	for i, ln := range lns {
		all.Go(func() { errs[i] = ln.drain(ctx) })
	}
	all.Wait()
	for _, ln := range lns {
		select {
		case <-ln.resting:
			ln.tcp.Close() // now: a SYN that was dropped is repeated, and must be refused then; Accept stays at rest until Shutdown
		default:
		}
	}
	grace := time.Now().Add(idleGrace)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for (d.busy() || d.resting() && time.Now().Before(grace)) && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	err := d.srv.Shutdown(ctx)
	if err != nil {
		d.srv.Close()
	}
	return errors.Join(append(errs, err)...)
}

// drainListener is a TCP listener that can be closed without losing a connection. Closing a listening socket resets every
// connection that the kernel has completed and nobody has accepted: its client believes itself connected, so neither the client
// nor a balancer between would try another node. drain empties that queue first.
type drainListener struct {
	tcp *net.TCPListener

	resting   chan struct{} // closed when Accept is at rest, by whoever runs Accept
	restOnce  sync.Once
	closed    chan struct{} // closed by Close
	closeOnce sync.Once
}

// listenTCP listens on addr; the network is tcp, tcp4 or tcp6. Multipath TCP, which package net asks for by default, is left out: such a listener keeps a socket
// filter to itself, and its connections would be lost by drain after all.
func listenTCP(ctx context.Context, network, addr string) (*drainListener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return newDrainListener(ln.(*net.TCPListener)), nil
}

func newDrainListener(tcp *net.TCPListener) *drainListener {
	return &drainListener{tcp: tcp, resting: make(chan struct{}), closed: make(chan struct{})}
}

// Accept is for one goroutine, which calls it again as soon as it has taken note of a connection, as http.Server.Serve does.
func (l *drainListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.tcp.Accept()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return conn, err
		}
		// Only drain sets deadlines: this is its question whether anything is left.
		if n, err := acceptQueue(l.tcp); err == nil && n > 0 {
			l.tcp.SetDeadline(time.Now().Add(10 * time.Millisecond))
			continue
		}
		l.restOnce.Do(func() { close(l.resting) })
		<-l.closed
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
}

// Close closes the socket.
func (l *drainListener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	if err := l.tcp.Close(); !errors.Is(err, net.ErrClosed) { // drained listeners have been closed by drainer.end
		return err
	}
	return nil
}

// Addr returns the address that the socket is bound to.
func (l *drainListener) Addr() net.Addr { return l.tcp.Addr() }

// drain makes Close safe. It stops the kernel from answering new clients, waits until every connection begun before has been
// handed out by Accept, and returns when the goroutine that runs Accept has taken note of the last. Close is to follow at once:
// a client that came meanwhile repeats its SYN a second later (RFC 6298, 2.1) and is then refused, which balancers understand.
//
// It is called while Accept is being called, before http.Server.Shutdown, and waits half a second at most: handshakes that are not complete by
// then are a flood or a dead client. An error means that connections may be lost by Close; nothing else has changed.
func (l *drainListener) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	err := dropSYN(l.tcp)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("drain %v: %w", l.Addr(), err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
wait:
	for {
		// The first tick comes before the first look: a SYN that passed before the filter was there has been counted by then.
		select {
		case <-ctx.Done():
			break wait
		case <-tick.C:
		}
		// In this order: a handshake that completes between the two is seen by the second.
		half, err := halfOpen(l.tcp)
		if err != nil {
			return fmt.Errorf("drain %v: %w", l.Addr(), err)
		}
		queued, err := acceptQueue(l.tcp)
		if err != nil {
			return fmt.Errorf("drain %v: %w", l.Addr(), err)
		}
		if half+queued == 0 {
			break
		}
	}
	if err := l.tcp.SetDeadline(time.Unix(1, 0)); err != nil {
		return fmt.Errorf("drain %v: %w", l.Addr(), err)
	}
	select {
	case <-l.resting:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain %v: connections were still waiting to be accepted: %w", l.Addr(), ctx.Err())
	}
}
