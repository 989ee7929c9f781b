package wire

import (
	"net"
	"sync"

	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// OpenClient returns a Port for a program that calls nodes and is none itself. It listens nowhere,
// and its node ID is made up, so that no node takes it for a member. Of cfg only Secrets, Dial,
// Timeout and Logger count. Use CallAddr; Close ends it.
func OpenClient(cfg Config) (*Port, error) {
	return Open(Config{
		ID:       peertls.RandomID(),
		Secrets:  cfg.Secrets,
		Listener: &noListener{done: make(chan struct{})},
		Dial:     cfg.Dial,
		Timeout:  cfg.Timeout,
		Logger:   cfg.Logger,
	})
}

// noListener is a listener that cannot be reached.
type noListener struct {
	once sync.Once
	done chan struct{}
}

// Accept waits for Close.
func (l *noListener) Accept() (net.Conn, error) {
	<-l.done
	return nil, net.ErrClosed
}

// Close ends Accept.
func (l *noListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr returns an address that cannot be dialled.
func (l *noListener) Addr() net.Addr { return &net.TCPAddr{} }
