package rafttransport

import (
	"sync"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// streams are the connections of one Transport.
type streams struct {
	mu      sync.Mutex
	stopped bool
	conns   map[*peerconn.Conn]struct{}
	peers   map[string]*peerStreams
}

// peerStreams are those with one peer.
type peerStreams struct {
	inbound  int    // open connections from it
	outbound int    // open connections to it that raft has
	broken   uint64 // how many connections to it broke
	dialled  string // its incarnation at the last dial
	spare    *spare // nil: there is none
	wanted   bool   // a spare was wanted
}

func newStreams() *streams {
	return &streams{conns: make(map[*peerconn.Conn]struct{}), peers: make(map[string]*peerStreams)}
}

// get needs mu.
func (s *streams) get(id string) *peerStreams {
	p := s.peers[id]
	if p == nil {
		p = new(peerStreams)
		s.peers[id] = p
	}
	return p
}

// keep makes closeAll close c. It returns false if that was called already.
func (s *streams) keep(c *peerconn.Conn) bool {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return false
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	c.AtClose(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	})
	return true
}

// closeAll closes all connections, those of keep and those to come.
func (s *streams) closeAll() {
	s.mu.Lock()
	s.stopped = true
	conns := make([]*peerconn.Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// addInbound changes the number of open connections from a peer, and returns it.
func (s *streams) addInbound(id string, n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.get(id)
	p.inbound += n
	return p.inbound
}

// addOutbound changes the number of raft's open connections to a peer.
func (s *streams) addOutbound(id string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.get(id).outbound += n
}

// dialled records which incarnation of a peer a dial has reached.
func (s *streams) dialled(id, incarnation string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.get(id).dialled = incarnation
}

// incarnation returns which incarnation of a peer the last dial has reached.
func (s *streams) incarnation(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(id).dialled
}

// broke records that a connection to a peer broke.
func (s *streams) broke(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.get(id).broken++
}

// broken returns how many connections to a peer broke.
func (s *streams) broken(id string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(id).broken
}
