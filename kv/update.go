package kv

import (
	"context"
	"errors"
	"sync"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// Update replaces the entry with that key by what f makes of it, and returns the new entry. No
// other write comes between. f gets an Entry with version 0 and no value if there is none. If
// another write was faster, f is called again with the newer entry. So f must have no effects of
// its own, and must not update the same key. An error of f ends Update, and is returned as it is.
//
// Without contention an Update costs one write. With contention the nodes take turns, and the
// callers of one node come in the order of their calls.
func (s *Store) Update(ctx context.Context, key string, f func(old Entry) ([]byte, error), opts Options) (Entry, error) {
	if err := s.check(key); err != nil {
		return Entry{}, s.fail("update", key, err)
	}
	name := state.ItemName(s.bucket, key)
	leave, err := s.b.updates.enter(ctx, name)
	if err != nil {
		return Entry{}, s.fail("update", key, err)
	}
	defer leave()
	for {
		e, own, err := s.attempt(ctx, name, key, f, opts)
		switch {
		case own != nil:
			return Entry{}, own
		case !errors.Is(err, ErrConflict):
			return e, s.fail("update", key, err)
		}
		s.b.OnContended([]string{name}) // the state machine says so too, but later
	}
}

// attempt is one attempt of an Update. own is the error of f.
func (s *Store) attempt(ctx context.Context, name, key string, f func(old Entry) ([]byte, error), opts Options) (e Entry, own, err error) {
	if s.b.isContended(name) {
		if done, err := s.b.cfg.Turn(ctx, name); err == nil {
			defer done()
		}
		if ctx.Err() != nil {
			return Entry{}, nil, context.Cause(ctx)
		}
	}
	st, current := s.b.cfg.Read(ctx)
	old := Entry{Key: key}
	if i := st.Items.Get(name); i != nil {
		old = entryOf(name, i)
	} else if !current {
		return Entry{}, nil, absent(current)
	}
	value, own := f(old)
	if own != nil {
		return Entry{}, own, nil
	}
	e, err = s.put(ctx, key, value, opts, []state.ItemIf{IfVersion(key, old.Version).test})
	return e, nil, err
}

// queues let the callers of this node take turns, for each name. The zero value is ready.
type queues struct {
	mu      sync.Mutex
	waiting map[string][]chan struct{} // the first of a name has its turn
}

// enter waits for the caller's turn. The caller must call leave.
func (q *queues) enter(ctx context.Context, name string) (leave func(), err error) {
	turn := make(chan struct{})
	q.mu.Lock()
	if q.waiting == nil {
		q.waiting = make(map[string][]chan struct{})
	}
	q.waiting[name] = append(q.waiting[name], turn)
	if len(q.waiting[name]) == 1 {
		close(turn)
	}
	q.mu.Unlock()
	leave = func() { q.leave(name, turn) }
	select {
	case <-turn:
		return leave, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// leave takes a caller out of the queue. If it was the first, the next one has its turn.
func (q *queues) leave(name string, turn chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.waiting[name]
	for i, other := range all {
		if other != turn {
			continue
		}
		all = append(all[:i:i], all[i+1:]...)
		if i == 0 && len(all) > 0 {
			close(all[0])
		}
		break
	}
	if q.waiting[name] = all; len(all) == 0 {
		delete(q.waiting, name)
	}
}
