package kv

import (
	"context"
	"io/fs"
	"sync"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// Refresh lets the TTL of an entry begin again. The entry keeps its value and its version, and no
// Watch yields it. Refreshes that come while another one is under way go together, in one entry of
// the log. The error wraps fs.ErrNotExist if there is no entry. Refresh does nothing for an entry
// that does not expire. It has no fence: in Node.Hold, use Txn with the operation Refresh.
func (s *Store) Refresh(ctx context.Context, key string) error {
	if err := s.check(key); err != nil {
		return s.fail("refresh", key, err)
	}
	err := s.b.refresh(ctx, s.bucket, key)
	if err == nil && s.b.cfg.State().Items.Get(state.ItemName(s.bucket, key)) == nil {
		err = fs.ErrNotExist
	}
	return s.fail("refresh", key, err)
}

// refreshes gathers refreshes. The zero value is ready.
type refreshes struct {
	mu   sync.Mutex
	next map[string]*refreshing // by bucket: what the next entry takes; nil: none is under way
}

// refreshing is one entry with refreshes.
type refreshing struct {
	keys map[string]bool
	done chan struct{} // closed when err is set
	err  error
}

func newRefreshing() *refreshing {
	return &refreshing{keys: make(map[string]bool), done: make(chan struct{})}
}

// refresh refreshes one key together with others.
func (b *Backend) refresh(ctx context.Context, bucket, key string) error {
	r := b.refreshes.join(bucket, key, func() { b.cfg.Life.Tasks.Go(func() { b.refreshAll(bucket) }) })
	ctx, stop := b.cfg.Life.WhileOpen(ctx)
	defer stop()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// join adds a key to the next entry. It calls start if nobody gathers for the bucket.
func (q *refreshes) join(bucket, key string, start func()) *refreshing {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next == nil {
		q.next = make(map[string]*refreshing)
	}
	r := q.next[bucket]
	if r == nil {
		r = newRefreshing()
		q.next[bucket] = r
		start()
	}
	r.keys[key] = true
	return r
}

// take returns what was gathered, nil if there is nothing: then the next join calls start.
func (q *refreshes) take(bucket string) *refreshing {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.next[bucket]
	if len(r.keys) == 0 {
		delete(q.next, bucket)
		return nil
	}
	q.next[bucket] = newRefreshing()
	return r
}

// refreshAll writes what is gathered for a bucket, until there is nothing.
func (b *Backend) refreshAll(bucket string) {
	for r := b.refreshes.take(bucket); r != nil; r = b.refreshes.take(bucket) {
		c := state.WriteItems{Bucket: bucket}
		for key := range r.keys {
			c.Ops = append(c.Ops, state.ItemOp{Key: key, Refresh: true})
			if len(c.Ops) == MaxOps {
				r.write(b, &c)
			}
		}
		r.write(b, &c)
		close(r.done)
	}
}

// write writes the operations of c, and empties it.
func (r *refreshing) write(b *Backend, c *state.WriteItems) {
	if r.err == nil && len(c.Ops) > 0 {
		_, r.err = b.write(b.cfg.Life.Works, *c)
	}
	c.Ops = nil
}
