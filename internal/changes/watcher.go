package changes

import (
	"cmp"
	"slices"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// Watcher yields changes of the items whose names begin with a prefix. It belongs to one goroutine,
// which must call Close.
type Watcher struct {
	feed      *Feed
	prefix    string
	refreshes bool
	group     *group
	wake      chan struct{}      // of capacity 1: the group may have a newer change
	at        uint64             // all changes up to this version were yielded
	taken     []state.ItemChange // what Next has returned last
}

// Watch returns a Watcher, and the state behind which its changes begin. It yields refreshes only
// if they are wanted.
func (f *Feed) Watch(prefix string, refreshes bool) (*Watcher, *state.State) {
	w := &Watcher{feed: f, prefix: prefix, refreshes: refreshes, wake: make(chan struct{}, 1)}
	f.join(w)
	// The group exists by now. So Run passes on to it what is not in this state yet.
	s := f.store.State()
	w.at = s.Index
	return w, s
}

// Close ends the watch.
func (w *Watcher) Close() { w.feed.leave(w) }

// Next returns the changes since the last call. If there are none, it returns a channel to receive
// from: then there may be some. After the error ErrLagged, the watcher yields nothing any more. The
// changes are the caller's until the next call.
func (w *Watcher) Next() ([]state.ItemChange, <-chan struct{}, error) {
	for {
		w.group.mu.Lock()
		last := w.group.last
		if w.at >= w.group.former {
			w.at = max(w.at, w.group.start)
		}
		w.group.mu.Unlock()
		clear(w.taken) // the garbage collector may have them
		w.taken = w.taken[:0]
		if last <= w.at {
			return nil, w.wake, nil
		}
		all, err := w.take()
		if len(all) > 0 || err != nil {
			return all, nil, err
		}
	}
}

// maxTaken is how many changes a watcher keeps room for.
const maxTaken = 64

// take returns the changes behind w.at, and moves w.at behind them.
func (w *Watcher) take() ([]state.ItemChange, error) {
	r := w.feed.latest.Load()
	if w.at < r.floor {
		return w.fromState()
	}
	all := w.taken
	for _, c := range r.after(w.at) {
		if w.wants(c) {
			all = append(all, c)
		}
	}
	w.at, w.taken = r.end, nil
	if len(all) <= maxTaken {
		w.taken = all
	}
	return all, nil
}

func (w *Watcher) wants(c state.ItemChange) bool {
	return strings.HasPrefix(c.Name, w.prefix) && (w.refreshes || !c.IsRefresh())
}

// fromState is take for a watcher whose part of the list is gone. It returns the newest change of
// each item.
func (w *Watcher) fromState() ([]state.ItemChange, error) {
	s := w.feed.store.State()
	deleted, complete := s.Items.Deleted(w.prefix, w.at)
	if !complete {
		return nil, ErrLagged
	}
	var all []state.ItemChange
	newest := make(map[string]uint64) // deletions, by the item's name
	for _, x := range deleted {
		newest[x.Name] = x.Version
	}
	for _, x := range deleted {
		if s.Items.Get(x.Name) == nil && x.Version == newest[x.Name] {
			all = append(all, state.ItemChange{Name: x.Name, Version: x.Version, Expired: x.Expired})
		}
	}
	for name, i := range state.Each(s.Items.ByName, []byte(w.prefix)) {
		c := state.ItemChange{Name: string(name), Version: i.Renewed, Item: i}
		if !w.refreshes {
			c.Version = i.Version
		}
		if c.Version > w.at {
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(a, b state.ItemChange) int { return cmp.Compare(a.Version, b.Version) })
	w.at = s.Index
	return all, nil
}
