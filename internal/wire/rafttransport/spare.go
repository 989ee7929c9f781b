package rafttransport

import (
	"context"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// spare is a connection to a peer that is there, or about to be, before raft asks for it.
type spare struct {
	ready chan struct{}  // closed when the dial has ended
	conn  *peerconn.Conn // nil if it has failed; read it after ready is closed
}

// Prepare keeps a connection to a peer ready for raft, unless raft has one. It does not wait. A
// follower needs one to each voter when it stands for election, and for nothing else. Without
// Prepare the handshake is a good part of the time that an election takes.
func (t *Transport) Prepare(id string) {
	s := t.streams.newSpare(id)
	if s == nil {
		return
	}
	begun := t.cfg.Life.Go(func() {
		defer close(s.ready)
		ctx, cancel := context.WithTimeout(context.Background(), t.cfg.Timeout)
		defer cancel()
		c, err := t.cfg.Dialer.Node(ctx, id, peerconn.Raft)
		if err != nil || !t.streams.keep(c) {
			t.streams.dropSpare(id, s)
			return
		}
		s.conn = c
		c.AtClose(func() { t.streams.dropSpare(id, s) })
	})
	if !begun {
		t.streams.dropSpare(id, s)
	}
}

// renew is called when a process of a peer connects. A connection that was wanted to the peer when
// it was not there, or that leads to an earlier process, is made now.
func (t *Transport) renew(id, incarnation string) {
	s, wanted := t.streams.spareOf(id)
	if !wanted {
		return
	}
	if s != nil {
		select {
		case <-s.ready:
		default:
			return // the dial is under way
		}
		if s.conn == nil || s.conn.Peer().Incarnation == incarnation || !t.streams.dropSpare(id, s) {
			return
		}
		s.conn.Close()
	}
	t.Prepare(id)
}

// newSpare registers a spare for a peer. It returns nil if there is one, or another connection.
func (s *streams) newSpare(id string) *spare {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.get(id)
	p.wanted = true
	if s.stopped || p.outbound > 0 || p.spare != nil {
		return nil
	}
	p.spare = &spare{ready: make(chan struct{})}
	return p.spare
}

// spareOf returns the spare of a peer, nil if there is none, and whether one was ever wanted.
func (s *streams) spareOf(id string) (which *spare, wanted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.get(id)
	return p.spare, p.wanted
}

// dropSpare reports whether a spare has not been taken, and forgets it.
func (s *streams) dropSpare(id string, which *spare) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.get(id)
	there := p.spare == which
	if there {
		p.spare = nil
	}
	return there
}

// takeSpare takes the spare of a peer and waits until its dial has ended. It returns nil if there
// is none, or if the dial has failed.
func (s *streams) takeSpare(id string) *peerconn.Conn {
	s.mu.Lock()
	p := s.get(id)
	which := p.spare
	p.spare = nil
	s.mu.Unlock()
	if which == nil {
		return nil
	}
	<-which.ready
	return which.conn
}
