package rpc

import (
	"fmt"
	"net/http"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// handle answers one call. It is among the goroutines that Life.Wait waits for.
func (s *Service) handle(w http.ResponseWriter, r *http.Request) {
	caller := callerOf(r.Context())
	s.cfg.Peers.Observe(caller.ID) // it may have been out of reach since its connection was made
	if !s.cfg.Life.Enter() {
		http.Error(w, peerconn.ErrClosed.Error(), http.StatusServiceUnavailable)
		return
	}
	defer s.cfg.Life.Leave()
	if r.ContentLength > MaxRequest {
		s.cfg.Rejected.Inc(peerconn.TooMany)
		http.Error(w, fmt.Sprintf("a call has at most %d bytes", MaxRequest), http.StatusRequestEntityTooLarge)
		return
	}
	if caller.Notice != nil {
		s.deathNotice(w, r, caller.Notice)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, MaxRequest)
	s.cfg.Handler.ServeHTTP(w, r)
}

// deathNotice serves the bearer of a death notice, whatever it asks for.
func (s *Service) deathNotice(w http.ResponseWriter, r *http.Request, n *peertls.Notice) {
	if s.cfg.DeathNotice == nil {
		s.cfg.Rejected.Inc(peerconn.BadProtocol)
		http.Error(w, "this node takes no death notices", http.StatusForbidden)
		return
	}
	if err := s.cfg.DeathNotice(r.Context(), n.Node, n.Session); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}
