package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// connectTimeout bounds the wait for a node to accept a connection. Then the balancer tries the
// next.
const connectTimeout = 250 * time.Millisecond

// balancer sends TCP connections to its backends in turn. It is very simple: it makes no health
// checks, does not read what it carries, and knows no TLS. If a backend does not accept a
// connection, it tries the next one, as every balancer does.
type balancer struct {
	ln       net.Listener
	backends []string

	cancel context.CancelFunc // ends dials
	done   sync.WaitGroup     // the goroutines

	mu    sync.Mutex // guards the rest
	next  int        // backend of the next connection
	conns map[net.Conn]struct{}
}

// startBalancer listens at addr and carries connections to backends.
func startBalancer(addr string, backends ...string) (*balancer, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &balancer{ln: ln, backends: backends, cancel: cancel, conns: make(map[net.Conn]struct{})}
	b.done.Go(func() { b.accept(ctx) })
	return b, nil
}

func (b *balancer) port() int { return b.ln.Addr().(*net.TCPAddr).Port }

// close ends all connections, and returns when they are gone.
func (b *balancer) close() {
	b.cancel()
	b.ln.Close()
	b.mu.Lock()
	for c := range b.conns {
		c.Close()
	}
	b.conns = nil // for keep
	b.mu.Unlock()
	b.done.Wait()
}

func (b *balancer) accept(ctx context.Context) {
	for {
		client, err := b.ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		b.done.Go(func() { b.carry(ctx, client) })
	}
}

// carry finds a backend for the client, and copies in both directions until both have sent
// everything.
func (b *balancer) carry(ctx context.Context, client net.Conn) {
	defer client.Close()
	if !b.keep(client) {
		return
	}
	defer b.drop(client)
	node := b.connect(ctx)
	if node == nil {
		return
	}
	defer node.Close()
	if !b.keep(node) {
		return
	}
	defer b.drop(node)

	var back sync.WaitGroup
	back.Go(func() { pipe(client, node) })
	pipe(node, client)
	back.Wait()
}

// connect returns a connection to the next backend, or to the first after it that accepts one, or
// nil.
func (b *balancer) connect(ctx context.Context) net.Conn {
	b.mu.Lock()
	first := b.next
	b.next = (b.next + 1) % len(b.backends)
	b.mu.Unlock()
	dialer := net.Dialer{Timeout: connectTimeout}
	for i := range b.backends {
		node, err := dialer.DialContext(ctx, "tcp", b.backends[(first+i)%len(b.backends)])
		if err == nil {
			return node
		}
	}
	return nil
}

// pipe copies from src to dst. When src has sent everything, dst sees the end and may still send.
// If one breaks, both end.
func pipe(dst, src net.Conn) {
	_, err := io.Copy(dst, src)
	if err == nil {
		err = dst.(*net.TCPConn).CloseWrite()
	}
	if err != nil {
		dst.Close()
		src.Close()
	}
}

// keep remembers a connection for close. It returns false if close was called.
func (b *balancer) keep(c net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conns == nil {
		return false
	}
	b.conns[c] = struct{}{}
	return true
}

func (b *balancer) drop(c net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, c)
}
