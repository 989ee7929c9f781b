package stubca

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
)

// Lookup is a resolver that knows no name.
func Lookup(_ context.Context, _, name string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// Dial refuses every connection.
func Dial(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("connection refused")
}

// Listen returns a listener that nobody can reach. Unlike a real one it does not stop the virtual
// time of a synctest bubble.
func Listen(string, string) (net.Listener, error) { return &listener{closed: make(chan struct{})}, nil }

type listener struct {
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	<-l.closed
	return nil, net.ErrClosed
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9} }

// Barrier returns a function that blocks until open is called or its context ends.
func Barrier() (wait func(context.Context) error, open func()) {
	ch := make(chan struct{})
	return func(ctx context.Context) error {
		select {
		case <-ch:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, func() { close(ch) }
}
