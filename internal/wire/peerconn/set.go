package peerconn

import (
	"net"
	"sync"
)

// Set tracks all connections of a node, from accept or dial to close.
type Set struct {
	mu     sync.Mutex
	closed bool
	conns  map[*Conn]struct{}
}

// NewSet returns an empty set.
func NewSet() *Set { return &Set{conns: make(map[*Conn]struct{})} }

// Track makes a tracked connection of raw. After Close it returns nil, and raw is not changed.
func (s *Set) Track(raw net.Conn) *Conn {
	c := &Conn{Conn: raw, raw: raw}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	c.AtClose(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	})
	return c
}

// All returns the open connections, in no order.
func (s *Set) All() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	return all
}

// Close closes all connections. No others are tracked from then on.
func (s *Set) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for _, c := range s.All() {
		c.Close()
	}
}
