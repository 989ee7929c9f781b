package kv

import (
	"context"
	"iter"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// Watch yields the entries whose keys begin with prefix, in the order of their keys, and then each
// change of them, in the order of their versions. It loses no change and yields none twice. A slow
// reader may skip a change of an entry, and then gets a newer one of the same entry. A refresh is
// no change. Watch continues over changes of the leader, lost leases and reconnections; it yields
// what this node applies, so it is silent while the node is cut off. Do not change the bytes of a
// value: other watches of this node may have the same.
//
// An error is the last that it yields: the cause of the end of ctx, flotilla.ErrClosed or another
// reason for which the node has stopped, or ErrLagged if the cluster has forgotten deletions that
// were not yielded yet: the reader was slow, or the node was cut off. The cluster remembers the
// newest 16,384 deletions, but no more than 1 MiB of their names.
func (s *Store) Watch(ctx context.Context, prefix string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if err := checkBucket(s.bucket); err != nil {
			yield(Event{}, s.fail("watch", prefix, err))
			return
		}
		ctx, stop := s.b.cfg.Life.WhileOpen(ctx)
		defer stop()
		s.b.cfg.Read(ctx) // so the first entries are as new as those of Get
		name := state.ItemName(s.bucket, prefix)
		w, st := s.b.cfg.Feed.Watch(name, false)
		defer w.Close()
		for name, i := range state.Each(st.Items.ByName, []byte(name)) {
			if !yield(Event{Entry: entryOf(string(name), i)}, nil) {
				return
			}
		}
		for {
			all, changed, err := w.Next()
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if err != nil {
				yield(Event{}, s.fail("watch", prefix, err))
				return
			}
			for _, c := range all {
				if !yield(s.b.eventOf(c), nil) {
					return
				}
			}
			if changed == nil {
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}
