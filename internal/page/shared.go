package page

import (
	"context"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/event"
)

// How often the cluster is looked at while somebody watches.
const (
	soonest = time.Second      // after the last look
	latest  = 10 * time.Second // although nothing has changed: lengths of time in the page grow
)

// seen is what one look at the cluster has shown.
type seen struct {
	began   time.Time       // the look, by the monotonic clock
	changed <-chan struct{} // closed when something has changed since then
	title   string
	main    []byte // the HTML of the element <main>, without its tags
	event   []byte // title and main as a server-sent event
}

// shared looks at the cluster for all viewers at a time. The request that needs a look first makes
// it. Others wait for it.
type shared struct {
	cfg      Config
	renderer *renderer

	mu     sync.Mutex
	newest *seen
	busy   chan struct{} // closed at the end of the look under way; nil: there is none
}

func newShared(cfg Config, r *renderer) *shared { return &shared{cfg: cfg, renderer: r} }

// get returns what a look has shown that is younger than a second. It fails only when ctx has
// ended.
func (s *shared) get(ctx context.Context) (*seen, error) {
	for {
		newest, busy := s.begin()
		if newest != nil {
			return newest, nil
		}
		if busy == nil {
			return s.look(ctx)
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// begin returns the newest look if it is young, or the end of the one under way. If both are nil
// the caller makes the next.
func (s *shared) begin() (*seen, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.newest != nil && time.Since(s.newest.began) < soonest:
		return s.newest, nil
	case s.busy != nil:
		return nil, s.busy
	}
	s.busy = make(chan struct{})
	return nil, nil
}

// look asks the nodes, and shows the result to all who wait. If ctx ends during that, another of
// them looks.
func (s *shared) look(ctx context.Context) (out *seen, err error) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if out != nil {
			s.newest = out
		}
		close(s.busy)
		s.busy = nil
	}()
	began, changed := time.Now(), s.cfg.Changed()
	happened := make(chan []event.Event, 1)
	go func() { happened <- s.cfg.Events(ctx) }()
	c, failed := s.cfg.Look(ctx)
	events := <-happened
	if err := ctx.Err(); err != nil {
		return nil, err // what was found may be incomplete
	}
	var m model
	if failed != nil {
		m = failedModel(failed, events, s.cfg.Self(), s.cfg.Now())
	} else {
		m = newModel(c, events, s.cfg.Self(), s.cfg.Now())
	}
	return s.renderer.render(&m, began, changed), nil
}
