// Package applied publishes the newest state that a node has applied, and wakes those who wait for
// one. It is the only thing that the parts of a node share of the replicated state.
package applied

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// Store publishes the newest state that a node has applied, and wakes those who wait for one. One
// goroutine publishes; all other methods are safe for concurrent use.
type Store struct {
	current atomic.Pointer[state.State]

	mu      sync.Mutex
	changed chan struct{} // closed at the next publication
}

// New returns a Store with an empty state.
func New() *Store {
	s := &Store{changed: make(chan struct{})}
	s.current.Store(state.New())
	return s
}

// State returns the newest state. It takes no lock.
func (s *Store) State() *state.State { return s.current.Load() }

// Next returns a channel that is closed when a state newer than that of any earlier call of State
// is published.
func (s *Store) Next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Publish makes next the newest state.
func (s *Store) Publish(next *state.State) {
	s.current.Store(next)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Wait returns the first state that it sees for which ok is true. Its error is the context's cause.
func (s *Store) Wait(ctx context.Context, ok func(*state.State) bool) (*state.State, error) {
	for {
		next := s.Next()
		if now := s.State(); ok(now) {
			return now, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
