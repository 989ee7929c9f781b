package applied

import (
	"context"
	"sync/atomic"

	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Store holds the newest state that a node has applied. New makes one. One goroutine at a time may
// call Publish; all other methods are safe for concurrent use.
type Store struct {
	current atomic.Pointer[state.State]
	changed notify.Signal
}

// New returns a Store with an empty state.
func New() *Store {
	s := new(Store)
	s.current.Store(state.New())
	return s
}

// State returns the newest state. It takes no lock.
func (s *Store) State() *state.State { return s.current.Load() }

// Next returns a channel that is closed when a newer state is published than any that State has
// returned before the call.
func (s *Store) Next() <-chan struct{} { return s.changed.Wait() }

// Publish makes next the newest state, and wakes those who wait.
func (s *Store) Publish(next *state.State) {
	s.current.Store(next)
	s.changed.Notify()
}

// Wait returns the first state that it sees for which ok returns true. Otherwise it returns the
// cause of ctx.
func (s *Store) Wait(ctx context.Context, ok func(*state.State) bool) (*state.State, error) {
	var found *state.State
	err := notify.Until(ctx, func() bool {
		found = s.State()
		return ok(found)
	}, &s.changed)
	if err != nil {
		return nil, err
	}
	return found, nil
}
