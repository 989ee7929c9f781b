package rafttransport

import (
	"errors"
	"sync"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// Endpoint makes the Transports of a node, one after the other, and gives the current one the
// connections of peers. Its methods may be called from several goroutines at once.
type Endpoint struct {
	cfg Config

	mu      sync.Mutex
	closed  bool
	current *Transport // nil before the first one, and after the Close of one
}

// NewEndpoint returns an Endpoint without a Transport.
func NewEndpoint(cfg Config) *Endpoint { return &Endpoint{cfg: cfg} }

// Transport returns the current Transport, and makes one if there is none. Close of a Transport,
// which raft.Shutdown calls, makes room for the next. After Close of the Endpoint it returns one
// that is stopped.
func (e *Endpoint) Transport() *Transport {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.current == nil {
		e.current = newTransport(e.cfg, e.forget)
		if e.closed {
			e.current.Stop()
		}
	}
	return e.current
}

// Close closes the current Transport. No other one works from then on. The Life must have ended.
func (e *Endpoint) Close() {
	e.mu.Lock()
	e.closed = true
	t := e.current
	e.mu.Unlock()
	if t != nil {
		t.Close()
	}
}

// forget makes room for the next Transport.
func (e *Endpoint) forget(t *Transport) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.current == t && !e.closed {
		e.current = nil
	}
}

// running returns the current Transport if raft runs, else nil.
func (e *Endpoint) running() *Transport {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.current == nil || e.current.ended() {
		return nil
	}
	return e.current
}

// Admit implements peerconn.Service.
func (e *Endpoint) Admit(peer peertls.Peer) error {
	if e.running() == nil {
		return peerconn.Refuse(peerconn.NotRunning, errors.New("raft is not running here"))
	}
	return peerconn.Refuse(peerconn.BadMember, e.cfg.Policy.Admit(peer.ID))
}

// Take implements peerconn.Service.
func (e *Endpoint) Take(c *peerconn.Conn) (serve, cancel func()) {
	t := e.running()
	return func() {
		if t == nil {
			c.Close()
			return
		}
		t.serve(c)
	}, func() {}
}
