package datagram

import (
	"errors"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

const (
	// IdleTimeout is how long the receiver keeps a connection that is not used.
	IdleTimeout = 2 * time.Minute

	bufferSize = 4 << 10
)

// receivers takes datagrams, over one connection for each peer.
type receivers struct {
	cfg Config

	mu sync.Mutex
	in map[string]*receiver // by node ID, the newest
}

// receiver is one inbound connection.
type receiver struct {
	id     string
	c      *peerconn.Conn
	before <-chan struct{} // closed when the peer's previous connection is done with; nil: none
	done   chan struct{}
}

func newReceivers(cfg Config) *receivers {
	return &receivers{cfg: cfg, in: make(map[string]*receiver)}
}

// enter makes c the peer's connection, and closes the one before.
func (s *receivers) enter(c *peerconn.Conn) *receiver {
	r := &receiver{id: c.Peer().ID, c: c, done: make(chan struct{})}
	s.mu.Lock()
	old := s.in[r.id]
	s.in[r.id] = r
	s.mu.Unlock()
	if old != nil {
		r.before = old.done
		old.c.Close()
	}
	return r
}

// leave undoes enter. No datagram of the connection may be in progress any more.
func (s *receivers) leave(r *receiver) {
	close(r.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in[r.id] == r {
		delete(s.in, r.id)
	}
}

// serve takes datagrams until the connection ends.
func (s *receivers) serve(r *receiver) {
	defer s.leave(r)
	defer r.c.Close()
	if r.before != nil {
		<-r.before // its connection is closed; its datagrams come first
	}
	if err := s.read(r); errors.Is(err, errFrame) {
		s.cfg.Rejected.Inc(peerconn.BadProtocol)
		if s.cfg.Throttle.Pass("datagram " + r.id) {
			s.cfg.Logger.Warn("closed a connection for datagrams", "peer", r.id, "error", err)
		}
	}
}

func (s *receivers) read(r *receiver) error {
	buf, here := make([]byte, bufferSize), []byte{frameHere}
	for have := 0; ; {
		r.c.SetReadDeadline(time.Now().Add(IdleTimeout))
		n, err := r.c.Read(buf[have:])
		if err != nil {
			return err
		}
		s.cfg.Peers.Observe(r.id)
		asked, left := false, buf[:have+n]
		for {
			f, size, err := decodeFrame(left)
			if err != nil {
				return err
			}
			if size == 0 {
				break
			}
			if f.ask {
				asked = true
			} else {
				s.cfg.OnDatagram(r.id, f.data)
			}
			left = left[size:]
		}
		have = copy(buf, left)
		if asked {
			r.c.SetWriteDeadline(time.Now().Add(s.cfg.Timeout))
			if _, err := r.c.Write(here); err != nil {
				return err
			}
		}
	}
}
