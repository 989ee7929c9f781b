package frontend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/notify"
)

// drainTimeout bounds each wait of a drain for the kernel or for Accept. It is shorter than the
// second after which a client repeats a lost SYN.
const drainTimeout = 500 * time.Millisecond

// Listener is a TCP listener that can be closed without losing a connection. When a listening
// socket is closed, the kernel resets every connection that it has completed and nobody has
// accepted. Such a client believes itself connected, so neither the client nor a balancer tries
// another node. drain empties that queue first.
type Listener struct {
	socket net.Listener
	tcp    *net.TCPListener // the socket, if it is of TCP; else nil
	lent   bool             // other processes may have the socket too

	resting   chan struct{} // the goroutine that runs Accept closes it when it accepts nothing more
	restOnce  sync.Once
	closed    chan struct{} // Close closes it
	closeOnce sync.Once

	changed notify.Signal // of answered, resting and closed

	mu              sync.Mutex
	asked, answered uint64                   // questions of awaitAccepted, and answers of Accept
	final           bool                     // drain has begun: Accept is to rest
	conns           map[*clientConn]struct{} // open ones
	// local addresses whose clients are to leave, with the number of drains
	leaving map[netip.Addr]int
}

// Listen listens on addr. The network is tcp, tcp4 or tcp6. It leaves out Multipath TCP, which
// package net uses by default: such a listener does not pass a socket filter on, so that drain
// would lose connections.
func Listen(ctx context.Context, network, addr string) (*Listener, error) {
	lc := net.ListenConfig{Control: wakeWriters}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return newListener(ln), nil
}

// Lent returns a Listener on a socket that somebody else has made, such as a service manager, which
// keeps it and gives it to the next process. No filter is attached to it: it would stay when this
// process has ended, and the next one would get no connection. A connection that arrives in the
// last moment waits for the next process. It is reset if there is none. If ln is not of TCP, Close
// may lose those that were not accepted, unless ln is a refuser.
func Lent(ln net.Listener) *Listener {
	l := newListener(ln)
	l.lent = true
	if l.tcp != nil {
		if raw, err := l.tcp.SyscallConn(); err == nil {
			wakeWriters("", "", raw)
		}
	}
	return l
}

// refuser is a socket in memory that can be drained. Refuse makes it refuse further connections.
// Accept returns those that wait, and then an error that is net.ErrClosed.
type refuser interface{ Refuse() }

func newListener(ln net.Listener) *Listener {
	tcp, _ := ln.(*net.TCPListener)
	return &Listener{
		socket: ln, tcp: tcp, resting: make(chan struct{}), closed: make(chan struct{}),
		conns: make(map[*clientConn]struct{}), leaving: make(map[netip.Addr]int),
	}
}

// Accept returns the next connection. Only one goroutine may call it, at once again each time, as
// http.Server.Serve does. It must have recorded a connection before it calls Accept again.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.socket.Accept()
		if err == nil {
			return l.admit(conn), nil
		}
		if l.tcp == nil {
			if l.isFinal() && errors.Is(err, net.ErrClosed) { // everything that waited was returned
				return nil, l.rest()
			}
			return nil, err
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, err
		}
		// Only drain and awaitAccepted set deadlines. They ask whether the queue is empty.
		l.mu.Lock()
		asked, final := l.asked, l.final
		l.mu.Unlock()
		if n, err := acceptQueue(l.tcp); err == nil && n > 0 {
			l.tcp.SetDeadline(time.Now().Add(10 * time.Millisecond))
			continue
		}
		if !final {
			l.answer(asked)
			continue
		}
		return nil, l.rest()
	}
}

// rest says that Accept accepts nothing more, waits for Close, and returns the error of a closed
// listener.
func (l *Listener) rest() error {
	l.restOnce.Do(func() { close(l.resting) })
	l.changed.Notify()
	<-l.closed
	return &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// isFinal reports whether drain has told Accept to rest.
func (l *Listener) isFinal() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.final
}

// answer says that the queue was empty after question number asked. Accept then waits again, unless
// there is another question.
func (l *Listener) answer(asked uint64) {
	l.mu.Lock()
	l.answered = asked
	if l.asked == asked && !l.final {
		l.tcp.SetDeadline(time.Time{})
	}
	l.mu.Unlock()
	l.changed.Notify()
}

// awaitAccepted waits until Accept has returned every connection that the kernel has completed, and
// its caller has recorded them. It waits for drainTimeout at most, and not at all if the socket is
// not of TCP.
func (l *Listener) awaitAccepted(ctx context.Context) {
	if l.tcp == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	l.mu.Lock()
	l.asked++
	asked := l.asked
	l.tcp.SetDeadline(time.Unix(1, 0))
	l.mu.Unlock()
	notify.Until(ctx, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.answered >= asked || l.isResting() || isClosed(l.closed)
	}, &l.changed)
}

// isResting reports whether Accept accepts nothing more.
func (l *Listener) isResting() bool { return isClosed(l.resting) }

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// admit records a new connection.
func (l *Listener) admit(conn net.Conn) *clientConn {
	c := &clientConn{Conn: conn, begun: time.Now(), onClose: l.forget}
	if addr, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		c.local = plainAddr(addr.AddrPort().Addr())
	} else if addr := conn.LocalAddr(); addr != nil { // on a network in memory
		if at, err := netip.ParseAddrPort(addr.String()); err == nil {
			c.local = plainAddr(at.Addr())
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = struct{}{}
	c.leaving.Store(l.leaving[c.local] > 0)
	return c
}

func (l *Listener) forget(c *clientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// setLeaving makes every answer to the clients of addr the last, until it is called with false as
// often as with true. Clients that are connected by then keep that.
func (l *Listener) setLeaving(addr netip.Addr, on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !on {
		if l.leaving[addr]--; l.leaving[addr] == 0 {
			delete(l.leaving, addr)
		}
		return
	}
	l.leaving[addr]++
	for c := range l.conns {
		if c.local == addr {
			c.leaving.Store(true)
		}
	}
}

// clients returns the open connections to addr.
func (l *Listener) clients(addr netip.Addr) []*clientConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*clientConn
	for c := range l.conns {
		if c.local == addr {
			all = append(all, c)
		}
	}
	return all
}

// Close closes the socket. Connections that nobody has accepted are reset.
func (l *Listener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	l.changed.Notify()
	if err := l.socket.Close(); !errors.Is(err, net.ErrClosed) { // a drainer closes the socket earlier
		return err
	}
	return nil
}

// Addr returns the address that the socket is bound to.
func (l *Listener) Addr() net.Addr { return l.socket.Addr() }

// drain makes Close safe. It stops the kernel from answering new clients, waits until Accept has
// returned every connection that had begun before, and returns when the goroutine that runs Accept
// has recorded the last of them. Close must follow at once. A client that came meanwhile repeats
// its SYN after a second (RFC 6298, 2.1), and the kernel refuses it then, which balancers
// understand.
//
// It is called while Accept is being called, and before http.Server.Shutdown. It waits for
// handshakes for drainTimeout at most. Those that are not complete by then are of a flood or of a
// dead client. Then drain waits for Accept, again for drainTimeout at most. An error means that
// Close may lose connections.
//
// If this process may not stop the kernel from answering, drain does the rest, and returns an error
// that is os.ErrPermission: Close may lose those who come in the last moment.
//
// A socket that was lent goes on answering new clients, since another process may have it. Accept
// returns those that have come until it rests.
func (l *Listener) drain(ctx context.Context) error {
	if l.tcp == nil {
		socket, ok := l.socket.(refuser)
		if !ok {
			return nil
		}
		l.mu.Lock()
		l.final = true
		l.mu.Unlock()
		socket.Refuse()
		return l.awaitRest(nil)
	}
	var refused, err error
	if !l.lent {
		refused = dropSYN(l.tcp)
		if errors.Is(refused, errors.ErrUnsupported) {
			return nil
		}
		err = refused
		if err == nil || errors.Is(err, os.ErrPermission) {
			err = l.awaitHandshakes(ctx)
		}
	}
	if err == nil {
		l.mu.Lock()
		l.final = true
		err = l.tcp.SetDeadline(time.Unix(1, 0))
		l.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("drain %v: %w", l.Addr(), err)
	}
	return l.awaitRest(refused)
}

// awaitRest waits until Accept rests, and returns refused then. It does not depend on a context:
// Accept has little to return, and never rests if nobody calls it.
func (l *Listener) awaitRest(refused error) error {
	rest := time.NewTimer(drainTimeout)
	defer rest.Stop()
	select {
	case <-l.resting:
		return refused
	case <-rest.C:
		if l.lent && l.tcp != nil { // what is left waits for the next process
			return nil
		}
		return fmt.Errorf("drain %v: connections were still waiting to be accepted: %w", l.Addr(), context.DeadlineExceeded)
	}
}

// awaitHandshakes waits until the kernel has no half-open connection to the listener and no
// completed one, but not longer than drainTimeout.
func (l *Listener) awaitHandshakes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		// The tick comes before the first look, so that a SYN which has just passed the filter is
		// counted.
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// In this order: a handshake that completes between the two is seen by the second.
		half, err := halfOpen(l.tcp)
		if err != nil {
			return err
		}
		queued, err := acceptQueue(l.tcp)
		if err != nil || half+queued == 0 {
			return err
		}
	}
}
