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

	"github.com/flotilla-ha/flotilla/internal/notify"
)

const (
	drainTimeout = 500 * time.Millisecond // shorter than the second after which a client repeats a lost SYN
	idleGrace    = time.Second            // for clients with a connection at rest, which may be sending at this moment
	tellEvery    = time.Second            // the log hears what is waited for
	silentAfter  = 5 * time.Second        // a new connection that says nothing is nobody's, as for http.Server.Shutdown
)

// Drainer takes an http.Server out of service without losing a request. http.Server.Shutdown by itself loses those of
// connections that wait to be accepted (see Listener), and those that are first read after it was called: such a connection
// is closed without an answer (conn.serve in net/http, Go 1.26), and since it was fresh, no client may assume that a retry
// is safe. Its methods are safe for concurrent use. It knows the connections of drainListeners, through whatever is on top of them.
type Drainer struct {
	srv    *http.Server
	log    *slog.Logger
	ending atomic.Bool
	silent time.Duration

	mu  sync.Mutex
	all map[*clientConn]struct{} // that http.Server has
}

// phase is what a drainer knows of a connection.
type phase byte

const (
	phaseFresh  phase = iota + 1 // accepted, and has not asked yet
	phaseActive                  // has a request without its answer
	phaseIdle                    // between two requests
)

// NewDrainer puts itself into srv, which must not be serving yet: around its Handler, its ConnState and its ConnContext.
func NewDrainer(srv *http.Server, log *slog.Logger) *Drainer {
	d := &Drainer{srv: srv, log: log, silent: silentAfter, all: map[*clientConn]struct{}{}}
	next, state, connContext := srv.Handler, srv.ConnState, srv.ConnContext
	if next == nil {
		next = http.DefaultServeMux
	}
	srv.Handler = &drainHandler{d, next}
	srv.ConnState = func(c net.Conn, s http.ConnState) {
		d.note(c, s)
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
			return ctx // net/http says what is wrong with nil
		}
		return context.WithValue(ctx, clientKey{}, client)
	}
	return d
}

// drainHandler is the handler of a drainer's server.
type drainHandler struct {
	d    *Drainer
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
	if h.d.ending.Load() || client != nil && client.Leaving.Load() {
		w.Header().Set("Connection", "close") // over HTTP/2 this sends GOAWAY
	}
	h.next.ServeHTTP(w, r)
}

func (d *Drainer) note(c net.Conn, s http.ConnState) {
	client := clientOf(c)
	if client == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch s {
	case http.StateNew:
		client.top, client.phase = c, phaseFresh
		d.all[client] = struct{}{}
	case http.StateActive:
		client.phase = phaseActive
	case http.StateIdle:
		client.phase, client.since = phaseIdle, time.Now()
	default:
		client.phase = 0
		delete(d.all, client)
	}
}

// isDue reports whether to wait for an answer on c. d.mu is held.
func (d *Drainer) isDue(c *clientConn) bool {
	return c.phase == phaseActive || c.phase == phaseFresh && time.Since(c.begun)-time.Duration(c.heard.Load()) < d.silent
}

// busy reports whether an answer is due on some connection.
func (d *Drainer) busy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.all {
		if d.isDue(c) {
			return true
		}
	}
	return false
}

// resting reports whether a connection is at rest, and not for long, of a server whose end began then. Shutdown closes these at once, and a client that sends on one just then has to send again; told by an answer that it was the last, it does not.
func (d *Drainer) resting(begun time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.all {
		if c.phase == phaseIdle && atRest(c.since, begun) < idleGrace {
			return true
		}
	}
	return false
}

// atRest returns for how long a connection could have been told that it has to go, and was not: its last answer, since when it is at rest,
// may have begun too early to say so.
func atRest(since, begun time.Time) time.Duration {
	if since.After(begun) {
		begun = since
	}
	return time.Since(begun)
}

// underWay returns how many requests have no answer yet, and how many new connections have not asked.
func (d *Drainer) underWay() (requests, silent int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.all {
		if c.phase == phaseActive {
			requests += c.asks()
		} else if d.isDue(c) {
			silent++
		}
	}
	return requests, silent
}

// announce makes every response from now on the last of its connection, so that clients come back through the balancer. New
// connections are accepted as before. It is for the time between the node's not being ready and end.
func (d *Drainer) announce() { d.ending.Store(true) }

// End drains the listeners that the server serves, waits until every request has its answer, and shuts the server down. When ctx
// ends first it closes the server, with the requests it has, and returns an error that says how many. An error from a listener means that a
// connection may have been lost; the server has been shut down all the same.
func (d *Drainer) End(ctx context.Context, lns ...*Listener) error {
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
	begun := time.Now()
	tick, tell := time.NewTicker(2*time.Millisecond), time.NewTicker(tellEvery)
	defer tick.Stop()
	defer tell.Stop()
	for (d.busy() || d.resting(begun)) && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-tell.C:
			requests, silent := d.underWay()
			d.log.Info(fmt.Sprintf("draining: %d requests under way", requests), "unasked", silent)
		}
	}
	requests, silent := d.underWay() // before Shutdown, which does not wait when ctx is over
	err := d.srv.Shutdown(ctx)
	if err != nil {
		d.srv.Close()
		err = fmt.Errorf("%d requests were cut, and %d connections that had not asked yet: %w", requests, silent, err)
	}
	return errors.Join(append(errs, err)...)
}

// Leave has the clients of one address of ln go, and returns how many requests it has cut since ctx ended first.
func (d *Drainer) Leave(ctx context.Context, addr netip.Addr, ln *Listener) (cut int) {
	ln.leave(addr, 1)
	defer ln.leave(addr, -1)
	ln.settle(context.WithoutCancel(ctx))
	clients := ln.Clients(addr)
	var closing sync.WaitGroup
	defer closing.Wait()
	begun := time.Now()
	tick, tell := time.NewTicker(2*time.Millisecond), time.NewTicker(tellEvery)
	defer tick.Stop()
	defer tell.Stop()
	for {
		over := ctx.Err() != nil
		requests := 0
		clients = slices.DeleteFunc(clients, func(c *clientConn) bool {
			n, top, wait := d.pending(c, begun)
			if wait && !over {
				requests += n
				return false
			}
			cut += n
			closing.Go(func() {
				if top != nil && !over {
					top.Close() // TLS says so, which takes some seconds if the client does not read
				}
				c.Close()
			})
			return true
		})
		if len(clients) == 0 {
			return cut
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-tell.C:
			d.log.Info(fmt.Sprintf("draining: %d requests under way", requests), "address", addr, "connections", len(clients))
		}
	}
}

// pending returns how many requests of c are under way, what http.Server has of it, and whether leave, which began then, is to wait for it.
func (d *Drainer) pending(c *clientConn, begun time.Time) (requests int, top net.Conn, wait bool) {
	if c.Closed.Load() {
		return 0, nil, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isDue(c) {
		if c.phase == phaseActive {
			requests = c.asks()
		}
		return requests, c.top, true
	}
	since := begun
	if c.phase == phaseIdle {
		since = c.since
	}
	return 0, c.top, atRest(since, begun) < idleGrace
}

// clientConn is a connection of a client. Its listener knows it until it is closed, by whomever: http.Server forgets those that are hijacked.
type clientConn struct {
	*net.TCPConn
	ln    *Listener
	local netip.Addr
	begun time.Time

	// drainer.mu guards these.
	top   net.Conn // what http.Server has of it; nil: it has not got it yet
	phase phase
	since time.Time // of phaseIdle

	heard    atomic.Int64 // how long after begun its handshake last got on, a time.Duration
	Leaving  atomic.Bool  // every answer is the last
	requests atomic.Int32 // in handlers
	Closed   atomic.Bool
	spoke    atomic.Bool // a byte has come
}

// Read notes that the client has spoken.
func (c *clientConn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	if n > 0 && !c.spoke.Load() {
		c.spoke.Store(true)
	}
	return n, err
}

// Close closes the socket.
func (c *clientConn) Close() error {
	if !c.Closed.Swap(true) {
		c.ln.forget(c)
	}
	return c.TCPConn.Close()
}

// asks returns how many requests there are on a connection on which an answer is due: one that is not read yet counts.
func (c *clientConn) asks() int { return max(1, int(c.requests.Load())) }

// clientOf returns the client's connection that c is on top of, nil if there is none.
func clientOf(c net.Conn) *clientConn {
	for {
		switch on := c.(type) {
		case *clientConn:
			return on
		case interface{ NetConn() net.Conn }: // crypto/tls's
			c = on.NetConn()
		case interface{ Raw() net.Conn }: // go-proxyproto's
			c = on.Raw()
		default:
			return nil
		}
	}
}

// PlainAddr returns the one form of addr that addresses are compared in.
func PlainAddr(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// Listener is a TCP listener that can be closed without losing a connection. Closing a listening socket resets every
// connection that the kernel has completed and nobody has accepted: its client believes itself connected, so neither the client
// nor a balancer between would try another node. drain empties that queue first.
type Listener struct {
	tcp *net.TCPListener

	resting   chan struct{} // closed when Accept is at rest, by whoever runs Accept
	restOnce  sync.Once
	closed    chan struct{} // closed by Close
	closeOnce sync.Once

	settled notify.Signal // answered has changed

	Mu              sync.Mutex
	Asked, answered uint64 // questions of settle, and those that Accept has answered
	final           bool   // drain has begun: Accept is to rest
	conns           map[*clientConn]struct{}
	Going           map[netip.Addr]int // addresses whose new clients are to leave, and how many want that
}

// ListenTCP listens on addr; the network is tcp, tcp4 or tcp6. Multipath TCP, which package net asks for by default, is left out: such a listener keeps a socket
// filter to itself, and its connections would be lost by drain after all.
func ListenTCP(ctx context.Context, network, addr string) (*Listener, error) {
	lc := net.ListenConfig{Control: wakeWriters}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return newListener(ln.(*net.TCPListener)), nil
}

func newListener(tcp *net.TCPListener) *Listener {
	return &Listener{
		tcp: tcp, resting: make(chan struct{}), closed: make(chan struct{}),
		conns: make(map[*clientConn]struct{}), Going: make(map[netip.Addr]int),
	}
}

// Accept is for one goroutine, which calls it again as soon as it has taken note of a connection, as http.Server.Serve does.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.tcp.AcceptTCP()
		if err == nil {
			return l.admit(conn), nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
		// Only drain and settle set deadlines: this is their question whether anything is left.
		l.Mu.Lock()
		asked, final := l.Asked, l.final
		l.Mu.Unlock()
		if n, err := acceptQueue(l.tcp); err == nil && n > 0 {
			l.tcp.SetDeadline(time.Now().Add(10 * time.Millisecond))
			continue
		}
		if !final {
			l.answer(asked)
			continue
		}
		l.restOnce.Do(func() { close(l.resting) })
		<-l.closed
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
}

// answer says that nothing was left when asked was the last question, and has Accept wait again unless there is another.
func (l *Listener) answer(asked uint64) {
	l.Mu.Lock()
	l.answered = asked
	if l.Asked == asked && !l.final {
		l.tcp.SetDeadline(time.Time{})
	}
	l.Mu.Unlock()
	l.settled.Notify()
}

// settle waits until every connection that the kernel has completed has been handed out by Accept and taken note of, half a second at most.
func (l *Listener) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	l.Mu.Lock()
	l.Asked++
	asked := l.Asked
	l.tcp.SetDeadline(time.Unix(1, 0))
	l.Mu.Unlock()
	for {
		settled := l.settled.Wait()
		l.Mu.Lock()
		done := l.answered >= asked
		l.Mu.Unlock()
		if done {
			return
		}
		select {
		case <-settled:
		case <-l.resting:
			return
		case <-l.closed:
			return
		case <-ctx.Done():
			return
		}
	}
}

// admit takes down a new connection.
func (l *Listener) admit(tcp *net.TCPConn) *clientConn {
	c := &clientConn{TCPConn: tcp, ln: l, begun: time.Now()}
	if addr, ok := tcp.LocalAddr().(*net.TCPAddr); ok {
		c.local = PlainAddr(addr.AddrPort().Addr())
	}
	l.Mu.Lock()
	defer l.Mu.Unlock()
	l.conns[c] = struct{}{}
	c.Leaving.Store(l.Going[c.local] > 0)
	return c
}

func (l *Listener) forget(c *clientConn) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	delete(l.conns, c)
}

// leave has the clients of addr told to leave, those that are there and those that come until it is called again with -1.
func (l *Listener) leave(addr netip.Addr, by int) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	if l.Going[addr] += by; l.Going[addr] == 0 {
		delete(l.Going, addr)
		return
	}
	for c := range l.conns {
		if c.local == addr {
			c.Leaving.Store(true)
		}
	}
}

// Clients returns the open connections to addr.
func (l *Listener) Clients(addr netip.Addr) []*clientConn {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	var all []*clientConn
	for c := range l.conns {
		if c.local == addr {
			all = append(all, c)
		}
	}
	return all
}

// Close closes the socket.
func (l *Listener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	if err := l.tcp.Close(); !errors.Is(err, net.ErrClosed) { // drained listeners have been closed by drainer.end
		return err
	}
	return nil
}

// Addr returns the address that the socket is bound to.
func (l *Listener) Addr() net.Addr { return l.tcp.Addr() }

// drain makes Close safe. It stops the kernel from answering new clients, waits until every connection begun before has been
// handed out by Accept, and returns when the goroutine that runs Accept has taken note of the last. Close is to follow at once:
// a client that came meanwhile repeats its SYN a second later (RFC 6298, 2.1) and is then refused, which balancers understand.
//
// It is called while Accept is being called, before http.Server.Shutdown. It waits half a second at most for the handshakes: those that are
// not complete by then are a flood or a dead client. Then it waits as long at most for Accept. An error means that connections may be lost by Close; nothing else has changed.
func (l *Listener) drain(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, drainTimeout)
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
		case <-waiting.Done():
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
	l.Mu.Lock()
	l.final = true
	err = l.tcp.SetDeadline(time.Unix(1, 0))
	l.Mu.Unlock()
	if err != nil {
		return fmt.Errorf("drain %v: %w", l.Addr(), err)
	}
	// Whatever of the time is left: Accept has little to hand out, and never rests if nobody calls it.
	rest := time.NewTimer(drainTimeout)
	defer rest.Stop()
	select {
	case <-l.resting:
		return nil
	case <-rest.C:
		return fmt.Errorf("drain %v: connections were still waiting to be accepted: %w", l.Addr(), context.DeadlineExceeded)
	}
}
