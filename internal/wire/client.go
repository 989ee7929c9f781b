package wire

import (
	"crypto/rand"
	"encoding/hex"
	"net"
	"sync"
)

// OpenClient returns a Port for a program that calls nodes and is none itself: it listens nowhere, and its node ID is made up, so
// that nobody takes it for a member. Of cfg only Secrets, Dial, Timeout and Logger count. Use CallAddr; Close ends it.
func OpenClient(cfg Config) (*Port, error) {
	return Open(Config{
		ID:       madeUpID(),
		Secrets:  cfg.Secrets,
		Listener: &silence{done: make(chan struct{})},
		Dial:     cfg.Dial,
		Timeout:  cfg.Timeout,
		Logger:   cfg.Logger,
	})
}

// madeUpID returns the ID of no node.
func madeUpID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// silence is a listener that nobody can reach.
type silence struct {
	once sync.Once
	done chan struct{}
}

// Accept waits for Close.
func (s *silence) Accept() (net.Conn, error) {
	<-s.done
	return nil, net.ErrClosed
}

// Close ends Accept.
func (s *silence) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// Addr returns an address that cannot be dialled.
func (s *silence) Addr() net.Addr { return &net.TCPAddr{} }
