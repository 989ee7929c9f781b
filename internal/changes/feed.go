package changes

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Bounds of the changes that a Feed keeps.
const (
	maxRecent      = 4096
	maxRecentBytes = 4 << 20 // of values
	maxBehind      = 8       // times as much, if Run has not passed it on
)

// ErrLagged is the error of a watcher that cannot know any more which items were deleted.
var ErrLagged = errors.New("the watch has missed deletions that are forgotten; begin another one")

// Feed keeps the newest changes and wakes watchers. Make it with New. Only the state machine's
// goroutine calls Add and Reset. All other methods are safe for concurrent use.
type Feed struct {
	store  *applied.Store
	latest atomic.Pointer[recent] // only the state machine's goroutine stores
	added  notify.Signal
	passed atomic.Uint64 // all changes up to this version have been passed on; only Run stores

	mu     sync.Mutex
	groups atomic.Pointer[iradix.Tree[*group]] // by prefix; stored under mu

	waking []*group // have a round; only Run uses it
}

// recent are the newest changes. It is never written to: its slice grows behind its end only.
type recent struct {
	changes []state.ItemChange // in the order of their versions
	bytes   int                // of the values in changes
	floor   uint64             // the version of the newest change that is gone
	end     uint64             // the version of the newest change

	// changes and bytes that are gone, but still in the array of changes
	goneChanges, goneBytes int
}

// New returns a Feed for the state in store.
func New(store *applied.Store) *Feed {
	f := &Feed{store: store}
	f.latest.Store(new(recent))
	f.groups.Store(iradix.New[*group]())
	return f
}

// size returns how many bytes of values a change keeps in memory. A refresh keeps that of the item.
func size(c state.ItemChange) int {
	if c.Item == nil || c.IsRefresh() {
		return 0
	}
	return len(c.Item.Value)
}

// Add passes on changes that the state in store has already. It does not block.
func (f *Feed) Add(all []state.ItemChange) {
	if len(all) == 0 {
		return
	}
	r := *f.latest.Load()
	r.changes = append(r.changes, all...)
	for _, c := range all {
		r.bytes += size(c)
		r.end = c.Version
	}
	r.trim(f.passed.Load())
	f.latest.Store(&r)
	f.added.Notify()
}

// trim drops the oldest changes. The newest entry stays whole in any case, and what is not passed
// on stays as long as that is possible.
func (r *recent) trim(passed uint64) {
	for (len(r.changes) > maxRecent || r.bytes > maxRecentBytes) && r.changes[0].Version != r.end {
		oldest := r.changes[0]
		if oldest.Version > passed && len(r.changes) <= maxBehind*maxRecent && r.bytes <= maxBehind*maxRecentBytes {
			break
		}
		r.floor = oldest.Version
		r.bytes -= size(oldest)
		r.goneChanges, r.goneBytes = r.goneChanges+1, r.goneBytes+size(oldest)
		r.changes = r.changes[1:]
	}
	if r.goneChanges > maxRecent/4 || r.goneBytes > maxRecentBytes {
		r.changes = slices.Clone(r.changes) // the old array goes with its last reader
		r.goneChanges, r.goneBytes = 0, 0
	}
}

// Reset passes on that the state in store came from a snapshot: anything may have changed.
func (f *Feed) Reset() {
	index := f.store.State().Index
	f.latest.Store(&recent{floor: index, end: index})
	f.added.Notify()
}

// Run wakes watchers until ctx ends.
func (f *Feed) Run(ctx context.Context) {
	var done uint64            // all changes up to it have been passed on
	var pause <-chan time.Time // until the next step of the rounds; nil: there are none
	for {
		added := f.added.Wait()
		if r := f.latest.Load(); r.end > done {
			f.pass(r, done)
			done = r.end
			f.passed.Store(done)
		}
		if pause == nil && len(f.waking) > 0 {
			pause = time.After(wakePause)
		}
		select {
		case <-added:
		case <-pause:
			pause = nil
			f.waking = slices.DeleteFunc(f.waking, func(g *group) bool { return !g.wakeSome() })
		case <-ctx.Done():
			return
		}
	}
}

// pass wakes the watchers of the changes behind the version done.
func (f *Feed) pass(r *recent, done uint64) {
	groups := f.groups.Load().Root()
	changed := make(map[*group]struct{})
	if done < r.floor { // some are gone
		for it := groups.Iterator(); ; {
			_, g, ok := it.Next()
			if !ok {
				break
			}
			g.observe(done, r.end)
			changed[g] = struct{}{}
		}
	} else {
		for _, c := range r.after(done) {
			groups.WalkPath([]byte(c.Name), func(_ []byte, g *group) bool {
				g.observe(done, c.Version)
				changed[g] = struct{}{}
				return false
			})
		}
	}
	for g := range changed {
		if g.begin() {
			f.waking = append(f.waking, g)
		}
	}
}

// after returns the changes behind a version, which must not be below the floor.
func (r *recent) after(version uint64) []state.ItemChange {
	i, _ := slices.BinarySearchFunc(r.changes, version+1, func(c state.ItemChange, v uint64) int {
		if c.Version < v {
			return -1
		}
		return 1
	})
	return r.changes[i:]
}
