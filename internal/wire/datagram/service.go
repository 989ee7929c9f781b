package datagram

import (
	"errors"
	"sync"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// Service sends and takes datagrams. Its methods may be called from several goroutines at once.
type Service struct {
	cfg Config
	in  *receivers

	mu  sync.Mutex
	out map[string]*sender // by node ID
}

// New returns a Service. It makes no connection before the first Send.
func New(cfg Config) *Service {
	return &Service{cfg: cfg, in: newReceivers(cfg), out: make(map[string]*sender)}
}

// Send queues a datagram for the node id. The caller may use the slice again after the call. A
// datagram of more than MaxSize bytes, or to an invalid node ID, is dropped; that is logged at
// level Debug.
func (s *Service) Send(id string, data []byte) {
	if len(data) > MaxSize || !peertls.ValidID(id) {
		s.cfg.Logger.Debug("dropped a datagram that cannot be sent", "peer", id, "bytes", len(data), "allowed", MaxSize)
		return
	}
	s.sender(id).send(data)
}

func (s *Service) sender(id string) *sender {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.out[id]
	if o == nil {
		o = newSender(s.cfg, id)
		s.out[id] = o
	}
	return o
}

// Admit implements peerconn.Service.
func (s *Service) Admit(peer peertls.Peer) error {
	if s.cfg.OnDatagram == nil {
		return peerconn.Refuse(peerconn.BadProtocol, errors.New("this node takes no datagrams"))
	}
	return peerconn.Refuse(peerconn.BadProcess, s.cfg.Fresh(peer.ID, peer.Incarnation))
}

// Take implements peerconn.Service. It closes the peer's connection before this one. A peer that
// has closed a connection and dialled again knows that by the answer.
func (s *Service) Take(c *peerconn.Conn) (serve, cancel func()) {
	r := s.in.enter(c)
	return func() { s.in.serve(r) }, func() { s.in.leave(r) }
}
