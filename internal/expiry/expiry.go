package expiry

import (
	"context"
	"log/slog"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/changes"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/state"
)

const (
	maxExpire = 1024        // entries in one command
	pause     = time.Second // after a failed attempt
)

// Config is what a Duty needs. All fields are required.
type Config struct {
	Log   *slog.Logger   // receives failed attempts
	Store *applied.Store // the state that this node has applied
	Feed  *changes.Feed  // tells which items were written or refreshed
}

// Duty is the leader's duty to delete expired entries.
type Duty struct{ cfg Config }

// New returns a Duty. It starts nothing.
func New(cfg Config) *Duty { return &Duty{cfg} }

// Run does the duty until the term ends.
func (x *Duty) Run(l *replica.Leadership) {
	x.run(l.Ctx, func(ctx context.Context, items []state.ItemAt) error {
		return l.ApplyAndNotify(ctx, &state.Command{Change: state.ExpireItems{Items: items}}, func(s *state.State) bool {
			for _, at := range items {
				if i := s.Items.Get(at.Name); i != nil && i.Renewed == at.Renewed {
					return false
				}
			}
			return true
		})
	})
}

// run has expired entries deleted by expire until ctx ends.
func (x *Duty) run(ctx context.Context, expire func(context.Context, []state.ItemAt) error) {
	q := newQueue()
	for ctx.Err() == nil {
		w, s := x.cfg.Feed.Watch("", true)
		q.restart(s, time.Now())
		err := x.follow(ctx, q, w, expire)
		w.Close()
		if ctx.Err() == nil {
			x.cfg.Log.Debug("looks at all entries of buckets again", "why", err)
		}
	}
}

// follow is run until the watcher has lagged.
func (x *Duty) follow(ctx context.Context, q *queue, w *changes.Watcher, expire func(context.Context, []state.ItemAt) error) error {
	for {
		all, changed, err := w.Next()
		if err != nil {
			return err
		}
		now := time.Now()
		for _, c := range all {
			q.observe(c.Name, c.Item, now)
		}
		if changed == nil {
			continue
		}
		if over := q.take(now); len(over) > 0 {
			if err := expire(ctx, over); err != nil && ctx.Err() == nil {
				x.cfg.Log.Warn("expired entries of buckets were not deleted; will try again", "entries", len(over), "err", err)
				q.again(over, time.Now().Add(pause))
			}
			continue
		}
		var due <-chan time.Time
		if end, ok := q.next(); ok {
			due = time.After(time.Until(end))
		}
		select {
		case <-changed:
		case <-due:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
