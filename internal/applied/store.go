// Package applied publishes the newest state that a node has applied, and wakes the goroutines that
// wait for one. It is all that the parts of a node share of the replicated state.
//
// A reader may skip intermediate states, but always gets the latest.
package applied

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// Store holds the newest state that a node has applied. Make it with New. Only one goroutine may
// call Publish. All other methods are safe for concurrent use.
type Store struct {
	current atomic.Pointer[state.State]

	mu      sync.Mutex
	changed chan struct{} // closed at the next publication
}

// New returns a Store that holds the state before the first entry.
func New() *Store {
	s := &Store{changed: make(chan struct{})}
	s.current.Store(state.New())
	return s
}

// State returns the newest state. It takes no lock.
func (s *Store) State() *state.State { return s.current.Load() }

// Next returns a channel that the next Publish closes. A caller that waits for a state takes the
// channel before it looks at State, so that it misses no change.
func (s *Store) Next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Publish makes next the newest state, and wakes the goroutines that wait.
func (s *Store) Publish(next *state.State) {
	s.current.Store(next)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Wait returns the first state that it sees for which ok returns true. It looks at once, and again
// after each Publish. When ctx ends first, it returns the cause.
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
