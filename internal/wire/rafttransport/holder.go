package rafttransport

import (
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// holder holds the calls that replicate to a peer which is down.
type holder struct {
	peers *peerconn.Table
	admit func(id string) error
	term  func() (term uint64, ok bool)
	done  <-chan struct{} // the end of the Transport

	mu       sync.Mutex
	over     uint64        // the highest term that release was called for
	released chan struct{} // closed and replaced by release
}

// release ends the calls of a term, and of earlier ones.
func (h *holder) release(term uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = max(h.over, term)
	close(h.released)
	h.released = make(chan struct{})
}

// state returns the highest released term, and the channel that the next release closes.
func (h *holder) state() (over uint64, released <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.over, h.released
}

// hold waits while a peer is down. round counts the failed dials since the call began.
func (h *holder) hold(peer string, term uint64, round int) error {
	if round > 1 {
		// A peer that reaches us but cannot be reached is seen again and again.
		pause := make(chan struct{})
		length := min(time.Duration(round)*50*time.Millisecond, 500*time.Millisecond)
		timer := time.AfterFunc(length, func() { close(pause) })
		defer timer.Stop()
		if err := h.await(pause, peer, term); err != nil {
			return err
		}
	}
	if up := h.peers.Up(peer); up != nil {
		return h.await(up, peer, term)
	}
	return nil
}

// await waits for c, or for a reason to hold no longer.
func (h *holder) await(c <-chan struct{}, peer string, term uint64) error {
	check := time.NewTicker(time.Second)
	defer check.Stop()
	for {
		over, released := h.state()
		if term <= over {
			return ErrReleased
		}
		select {
		case <-c:
			return nil
		case <-released:
		case <-h.done:
			return peerconn.ErrClosed
		case <-check.C:
			if err := h.admit(peer); err != nil {
				return fmt.Errorf("%w: %w", ErrReleased, err)
			}
			if own, ok := h.term(); ok && own > term {
				return ErrReleased
			}
		}
	}
}
