package simnet

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// firstPort and lastPort bound the ports that Listen and Dial pick.
const firstPort, lastPort = 32768, 65535

// Host is one machine, or one process. It has ports to listen on, and connections. Any goroutine
// may call its methods.
type Host struct {
	net  *Network
	name string

	// Guarded by net.mu.
	listeners map[int]*listener
	port      int // the next one to pick
	crashes   int
	down      bool
	frozen    bool
}

// addr is a host's name and port.
type addr string

// Network returns "tcp".
func (a addr) Network() string { return "tcp" }

// String returns "name:port".
func (a addr) String() string { return string(a) }

func (h *Host) addr(port int) addr { return addr(net.JoinHostPort(h.name, strconv.Itoa(port))) }

// Name returns the name of the host.
func (h *Host) Name() string { return h.name }

// Listen listens on a port of h. The network is tcp, tcp4 or tcp6. The host part of address is
// empty, an unspecified or loopback address, or the name of h. Port 0 picks a free one. Errors are
// *net.OpError; for a port in use they wrap syscall.EADDRINUSE.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	fail := func(err error) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: addr(address), Err: err}
	}
	name, port, err := h.parse(network, address)
	if err != nil {
		return fail(err)
	}
	if name != h.name {
		return fail(syscall.EADDRNOTAVAIL)
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.down {
		return fail(syscall.ENETDOWN)
	}
	if port == 0 {
		port = h.pick()
	}
	if h.listeners[port] != nil {
		return fail(syscall.EADDRINUSE)
	}
	l := &listener{host: h, port: port}
	h.listeners[port] = l
	return l, nil
}

// Dial connects to "name:port". It takes one latency there and one back. Errors are *net.OpError.
// They wrap syscall.ECONNREFUSED if nobody listens there, the error of ctx if it is done, and
// syscall.ECONNABORTED if h crashes meanwhile. While either direction is cut, or h stands still,
// Dial waits.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return h.DialAs(ctx, network, address, address)
}

// DialAs is Dial to a host that has another address too: as, "address:port". Both ends see it as
// the address of the one that is dialed.
func (h *Host) DialAs(ctx context.Context, network, address, as string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: addr(address), Err: err}
	}
	name, port, err := h.parse(network, address)
	if err != nil {
		return fail(err)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for born, away := h.crashes, false; ; {
		if h.crashes != born || h.down {
			return fail(syscall.ECONNABORTED)
		}
		cut := n.cut(h.name, name) || n.cut(name, h.name) || h.frozen
		if away && !cut {
			break
		}
		// On a cut path the request is lost. It is sent again when the path is mended.
		away = !cut
		wake, rtt := n.changed.wait(), n.dialTime(path{h.name, name})
		n.mu.Unlock()
		if cut {
			wait(ctx, wake, 0)
		} else if rtt > 0 {
			wait(ctx, nil, rtt)
		}
		n.mu.Lock()
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
	}
	there := n.hosts[name]
	if there == nil || there.listeners[port] == nil {
		return fail(syscall.ECONNREFUSED)
	}
	l := there.listeners[port]
	end := there.addr(port)
	if as != address {
		end = addr(as)
	}
	near, far := n.connect(h, h.addr(h.pick()), there, end)
	l.backlog = append(l.backlog, far)
	l.arrived.broadcast()
	return near, nil
}

// Crash does what kill -9 of the process would do. All connections are reset, which peers read as
// syscall.ECONNRESET, and all listeners are gone. Code on this side that still uses them gets
// net.ErrClosed. Afterwards the host may listen and dial again, as a new process. Nothing of the
// crash crosses a cut path before that is mended. For the death of a machine, Isolate it first.
func (h *Host) Crash() {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	h.thaw(func(s *stream) { s.forget() })
	h.crashes++
	for _, l := range h.listeners {
		l.close()
	}
	for l := range n.links {
		for _, c := range l.ends {
			if c.host == h {
				c.end(reset)
			}
		}
	}
	n.changed.broadcast()
}

// Kill is Crash for a process whose code goes on running, as in a test. Until Revive the host can
// neither listen nor dial, so no other host sees what the code still does.
func (h *Host) Kill() {
	h.setDown(true)
	h.Crash()
}

// Revive undoes Kill, for the next process.
func (h *Host) Revive() { h.setDown(false) }

func (h *Host) setDown(down bool) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.down = down
}

// Freeze does what a stop of the process would do: SIGSTOP, a debugger, or a machine that is too
// busy. The kernel goes on: connections stay up, other hosts can connect, and what they send is
// kept. But nothing that the process writes leaves it, and its reads, accepts and dials wait, until
// Thaw. The code of the process runs on in a test; only the network does not show what it does.
func (h *Host) Freeze() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if !h.frozen {
		h.setFrozen(true)
	}
}

// Thaw undoes Freeze. What the process has written meanwhile is sent now.
func (h *Host) Thaw() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.thaw(func(*stream) {})
}

// thaw ends a freeze, and calls each with the streams to other hosts before. The caller holds the
// lock.
func (h *Host) thaw(each func(*stream)) {
	if !h.frozen {
		return
	}
	for l := range h.net.links {
		for _, c := range l.ends {
			if c.host == h {
				each(c.peer.in)
			}
		}
	}
	h.setFrozen(false)
}

func (h *Host) setFrozen(frozen bool) {
	h.frozen = frozen
	now := time.Now()
	for l := range h.net.links {
		for _, c := range l.ends {
			if c.host == h {
				c.in.changed.broadcast()
				c.peer.in.setFrozen(frozen, now)
			}
		}
	}
	for _, l := range h.listeners {
		l.arrived.broadcast()
	}
	h.net.changed.broadcast()
}

// pick returns a port without a listener. The caller holds the lock.
func (h *Host) pick() int {
	for range lastPort - firstPort {
		p := h.port
		if h.port++; h.port > lastPort {
			h.port = firstPort
		}
		if h.listeners[p] == nil {
			return p
		}
	}
	return lastPort
}

// parse returns the host and the port of an address, as h means it.
func (h *Host) parse(network, address string) (name string, port int, err error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return "", 0, net.UnknownNetworkError(network)
	}
	name, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	p, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, &net.AddrError{Err: "invalid port", Addr: address}
	}
	ip, err := netip.ParseAddr(name)
	if name == "" || name == "localhost" || err == nil && (ip.IsUnspecified() || ip.IsLoopback()) {
		name = h.name
	}
	return name, int(p), nil
}

// wait returns when wake is closed or, if wake is nil, when d has passed. It also returns when ctx
// is done.
func wait(ctx context.Context, wake <-chan struct{}, d time.Duration) {
	var after <-chan time.Time
	if wake == nil {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-wake:
	case <-after:
	case <-ctx.Done():
	}
}

// listener implements net.Listener.
type listener struct {
	host *Host
	port int

	// Guarded by host.net.mu.
	backlog  []*conn
	arrived  signal
	refusing bool // nothing is added to the backlog any more
	closed   bool
}

// Accept waits for a connection. After Close, or when the host has crashed, the error wraps
// net.ErrClosed. After Refuse that is so when nobody waits any more.
func (l *listener) Accept() (net.Conn, error) {
	mu := &l.host.net.mu
	mu.Lock()
	defer mu.Unlock()
	for {
		if l.closed {
			return nil, l.fail("accept")
		}
		if len(l.backlog) > 0 && !l.host.frozen {
			c := l.backlog[0]
			l.backlog = l.backlog[1:]
			return c, nil
		}
		if l.refusing {
			return nil, l.fail("accept")
		}
		wake := l.arrived.wait()
		mu.Unlock()
		<-wake
		mu.Lock()
	}
}

// Refuse frees the port. Further connections are refused, unless somebody else listens there. Those
// that were not accepted can still be.
func (l *listener) Refuse() {
	mu := &l.host.net.mu
	mu.Lock()
	defer mu.Unlock()
	l.refusing = true
	l.free()
	l.arrived.broadcast()
}

// free gives the port back. The caller holds the lock.
func (l *listener) free() {
	if l.host.listeners[l.port] == l {
		delete(l.host.listeners, l.port)
	}
}

func (l *listener) fail(op string) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close ends the listener, and resets the connections that were not accepted.
func (l *listener) Close() error {
	mu := &l.host.net.mu
	mu.Lock()
	defer mu.Unlock()
	if l.closed {
		return l.fail("close")
	}
	l.close()
	return nil
}

func (l *listener) close() {
	l.closed = true
	l.free()
	for _, c := range l.backlog {
		c.end(reset)
	}
	l.backlog = nil
	l.arrived.broadcast()
}

// Addr returns the name of the host and the port.
func (l *listener) Addr() net.Addr { return l.host.addr(l.port) }
