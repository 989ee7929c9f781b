package wire

import (
	"sync"
	"time"
)

// peers is what a node knows of the others from its connections with them.
type peers struct {
	mu sync.Mutex
	m  map[string]*peer
}

// peer is guarded by peers.mu.
type peer struct {
	contact time.Time     // when it last answered
	up      chan struct{} // while the last dial to it has failed and it was not heard of since: closed when it is; else nil
	refused bool          // that dial was refused by its port
	err     error         // why that dial failed
	since   time.Time     // of the first that has failed since it was last heard of
	broken  uint64        // how many connections to it broke
	conns   int           // authenticated connections from it
	raft    int           // those of them that are for raft
	process string        // that was dialled for raft last
}

func newPeers() *peers { return &peers{m: make(map[string]*peer)} }

// get needs mu.
func (s *peers) get(id string) *peer {
	p := s.m[id]
	if p == nil {
		p = new(peer)
		s.m[id] = p
	}
	return p
}

// heard notes that id is reachable.
func (s *peers) heard(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.get(id).heard()
}

func (p *peer) heard() {
	p.refused, p.err = false, nil
	if p.up != nil {
		close(p.up)
		p.up = nil
	}
}

// answered notes that id answered an AppendEntries or a call just now.
func (s *peers) answered(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.get(id)
	p.contact = time.Now()
	p.heard()
}

// failed notes that a dial to id failed.
func (s *peers) failed(id string, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.get(id)
	p.refused = refused
	if p.up == nil {
		p.up = make(chan struct{})
	}
}

// blame notes why a dial to id failed.
func (s *peers) blame(id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.get(id)
	if p.err == nil {
		p.since = time.Now()
	}
	p.err = err
}

// LastError returns why the node id cannot be reached, and since when: the error of the last dial to it. It is nil if that was not tried, has
// worked, or if the node was heard of since.
func (p *Port) LastError(id string) (since time.Time, err error) {
	p.peers.mu.Lock()
	defer p.peers.mu.Unlock()
	if o := p.peers.m[id]; o != nil && o.err != nil {
		return o.since, o.err
	}
	return time.Time{}, nil
}

// up returns nil if id is thought to be reachable, else a channel that is closed when it is.
func (s *peers) up(id string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(id).up
}

// reached notes which process was dialled for raft.
func (s *peers) reached(id, process string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.get(id).process = process
}

// processOf returns the process that was dialled for raft last.
func (s *peers) processOf(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(id).process
}

// broke notes that a connection to id broke.
func (s *peers) broke(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.get(id).broken++
}

// broken returns how often broke was called.
func (s *peers) broken(id string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(id).broken
}

// enter counts an inbound connection, unless there are too many.
func (s *peers) enter(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.get(id)
	if p.conns >= maxConns {
		return false
	}
	p.conns++
	return true
}

func (s *peers) leave(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.get(id).conns--
}

// addRaft changes the number of inbound raft connections and returns it.
func (s *peers) addRaft(id string, n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.get(id)
	p.raft += n
	return p.raft
}

// HungUp reports whether the process of the node id is believed to be gone: the last dial to it was refused by its port, it has not been
// heard of since, and no authenticated connection from it is open. It is false for a node that was never dialled. This is evidence
// and no proof: a firewall that resets all that comes, and an address book that is wrong while the node says nothing, look the same.
func (p *Port) HungUp(id string) bool { return p.peers.hungUp(id) }

func (s *peers) hungUp(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.m[id]
	return p != nil && p.refused && p.conns == 0
}

// view returns a copy of what is known of id.
func (s *peers) view(id string) (contact time.Time, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.m[id]; p != nil {
		return p.contact, p.refused
	}
	return time.Time{}, false
}
