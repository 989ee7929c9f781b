package expiry

import (
	"container/heap"
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
	var q queue
	for ctx.Err() == nil {
		w, s := x.cfg.Feed.Watch("", true)
		now := time.Now()
		for name, i := range state.Each(s.Items.ByName, nil) {
			q.add(string(name), i, now)
		}
		err := x.follow(ctx, &q, w, expire)
		w.Close()
		if ctx.Err() == nil {
			x.cfg.Log.Debug("counts the time of entries of buckets again", "why", err)
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
			if c.Item != nil {
				q.add(c.Name, c.Item, now)
			}
		}
		if changed == nil {
			continue
		}
		if over := q.take(now, x.cfg.Store.State()); len(over) > 0 {
			if err := expire(ctx, over); err != nil && ctx.Err() == nil {
				x.cfg.Log.Warn("expired entries of buckets were not deleted; will try again", "entries", len(over), "err", err)
				q.again(over, time.Now().Add(pause))
			}
			continue
		}
		var due <-chan time.Time
		if len(*q) > 0 {
			due = time.After(time.Until((*q)[0].end))
		}
		select {
		case <-changed:
		case <-due:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// queue has entries by the end of their time, the earliest first. An entry that was renewed is in
// it more than once.
type queue []timed

type timed struct {
	state.ItemAt
	end time.Time
}

// add adds an item whose time begins now. It leaves out an item that does not expire.
func (q *queue) add(name string, i *state.Item, now time.Time) {
	if i.TTL != 0 {
		heap.Push(q, timed{state.ItemAt{Name: name, Renewed: i.Renewed}, now.Add(i.TTL)})
	}
}

// again adds items that are looked at again at a time.
func (q *queue) again(items []state.ItemAt, at time.Time) {
	for _, i := range items {
		heap.Push(q, timed{i, at})
	}
}

// take takes out what is over. It returns those that were not renewed since, as many as one command
// may have.
func (q *queue) take(now time.Time, s *state.State) (over []state.ItemAt) {
	for len(*q) > 0 && !(*q)[0].end.After(now) && len(over) < maxExpire {
		t := heap.Pop(q).(timed)
		if i := s.Items.Get(t.Name); i != nil && i.Renewed == t.Renewed {
			over = append(over, t.ItemAt)
		}
	}
	return over
}

// These implement heap.Interface.

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].end.Before(q[j].end) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(timed)) }

// Pop takes out the last element, as heap.Interface has it.
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = timed{}
	*q = old[:len(old)-1]
	return last
}
