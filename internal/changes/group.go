package changes

import (
	"sync"
	"time"
)

// How the watchers of a group are woken. Each that wakes takes a processor for some microseconds,
// and a thousand of them at once would hold up the writers.
const (
	wakeAtOnce = 32 // or a part of the group, so that a round has at most wakeSteps steps
	wakeSteps  = 16
	wakePause  = time.Millisecond
)

// group is what all watchers of one prefix share.
type group struct {
	mu       sync.Mutex
	watchers map[*Watcher]struct{}
	last     uint64 // the version of the newest change with the prefix

	// No change with the prefix lies behind former up to start. The others up to last are behind
	// start.
	former, start uint64

	// Only Run uses these. A round wakes the watchers step by step.
	round []*Watcher // are not woken yet
	step  int        // how many are woken at a time
	again bool       // there is a newer change, so another round follows
}

// observe notes a change with the group's prefix. All changes up to done have been passed on.
func (g *group) observe(done, version uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.start != done || g.last <= done {
		g.former, g.start = g.last, done
	}
	g.last = version
}

// begin wakes the first watchers after a change, and reports whether it has begun a round that
// wakeSome must go on with.
func (g *group) begin() bool {
	if len(g.round) > 0 {
		g.again = true
		return false
	}
	g.mu.Lock()
	for w := range g.watchers {
		g.round = append(g.round, w)
	}
	g.mu.Unlock()
	g.step = max(wakeAtOnce, (len(g.round)+wakeSteps-1)/wakeSteps)
	return g.wakeSome()
}

// wakeSome does a step of the round, and reports whether another one must follow.
func (g *group) wakeSome() bool {
	n := max(0, len(g.round)-g.step)
	for _, w := range g.round[n:] {
		select {
		case w.wake <- struct{}{}:
		default: // it has not looked since it was woken before
		}
	}
	clear(g.round[n:])
	if g.round = g.round[:n]; n == 0 && g.again {
		g.again = false
		return g.begin()
	}
	return n > 0
}

// join adds a watcher to the group of its prefix.
func (f *Feed) join(w *Watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	groups := f.groups.Load()
	g, ok := groups.Get([]byte(w.prefix))
	if !ok {
		g = &group{watchers: make(map[*Watcher]struct{})}
		groups, _, _ = groups.Insert([]byte(w.prefix), g)
		f.groups.Store(groups)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watchers[w] = struct{}{}
	w.group = g
}

// leave undoes join.
func (f *Feed) leave(w *Watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.group.mu.Lock()
	defer w.group.mu.Unlock()
	delete(w.group.watchers, w)
	if len(w.group.watchers) == 0 {
		groups, _, _ := f.groups.Load().Delete([]byte(w.prefix))
		f.groups.Store(groups)
	}
}
