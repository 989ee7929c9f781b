package clustertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/freeport"
)

// loopback is the network of this machine. Each port of a host is another one of 127.0.0.1.
type loopback struct {
	mu    sync.Mutex
	ports map[string]string // "host:port" to the address that it is
	peers map[string]*peerSockets
}

// peerSockets are the sockets between a node and its peers.
type peerSockets struct {
	mu     sync.Mutex
	down   bool
	opened map[net.Conn]struct{}
}

func newLoopback() *loopback {
	return &loopback{ports: make(map[string]string), peers: make(map[string]*peerSockets)}
}

// addr returns the address that a port of a host is. The first call finds a free one.
func (l *loopback) addr(host, port string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := net.JoinHostPort(host, port)
	if l.ports[key] != "" {
		return l.ports[key], nil
	}
	taken := make(map[string]bool)
	for _, addr := range l.ports {
		taken[addr] = true
	}
	addrs, err := freeport.Addrs(1)
	for err == nil && taken[addrs[0]] {
		addrs, err = freeport.Addrs(1)
	}
	if err != nil {
		return "", err
	}
	l.ports[key] = addrs[0]
	return addrs[0], nil
}

func (l *loopback) place(host string, cfg *flotilla.Config) (err error) {
	for port, field := range map[string]*string{
		peerPort: &cfg.Addr, httpsPort: &cfg.HTTPSAddr, httpPort: &cfg.HTTPAddr, healthPort: &cfg.HealthAddr,
	} {
		if *field, err = l.addr(host, port); err != nil {
			return err
		}
	}
	p := &peerSockets{opened: make(map[net.Conn]struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.peers[host] = p
	cfg.PeerListen = func(network, addr string) (net.Listener, error) {
		ln, err := net.Listen(network, addr)
		if err != nil {
			return nil, err
		}
		return &peerListener{ln, p}, nil
	}
	cfg.PeerDial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return p.open(conn)
	}
	return nil
}

func (l *loopback) peerAddr(host string) (string, error) { return l.addr(host, peerPort) }

func (l *loopback) listen(host, port string) (net.Listener, error) {
	addr, err := l.addr(host, port)
	if err != nil {
		return nil, err
	}
	return net.Listen("tcp", addr)
}

// dial takes a port that the host does not have for one of this machine, as redirects name it.
func (l *loopback) dial(ctx context.Context, _, to, port string) (net.Conn, error) {
	l.mu.Lock()
	addr := l.ports[net.JoinHostPort(to, port)]
	l.mu.Unlock()
	if addr == "" {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

func (l *loopback) kill(host string) { l.of(host).setDown(true) }

func (l *loopback) revive(host string) { l.of(host).setDown(false) }

func (l *loopback) of(host string) *peerSockets {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peers[host]
}

// setDown resets all connections of a process, and lets it have no others, or allows them to the
// next one.
func (p *peerSockets) setDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
	if !down {
		return
	}
	for conn := range p.opened {
		reset(conn)
	}
	clear(p.opened)
}

// open takes a new connection in.
func (p *peerSockets) open(conn net.Conn) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		reset(conn)
		return nil, fmt.Errorf("the process was killed: %w", syscall.ECONNABORTED)
	}
	p.opened[conn] = struct{}{}
	return &peerConn{conn, p}, nil
}

// reset closes a connection as the kernel does for a process that was killed.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// peerListener listens for the peers of a node.
type peerListener struct {
	net.Listener
	sockets *peerSockets
}

// Accept returns no connection for a process that was killed.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if conn, err = l.sockets.open(conn); !errors.Is(err, syscall.ECONNABORTED) {
			return conn, err
		}
	}
}

// peerConn is a connection between two nodes.
type peerConn struct {
	net.Conn
	sockets *peerSockets
}

// Close implements net.Conn.
func (c *peerConn) Close() error {
	c.sockets.mu.Lock()
	delete(c.sockets.opened, c.Conn)
	c.sockets.mu.Unlock()
	return c.Conn.Close()
}
