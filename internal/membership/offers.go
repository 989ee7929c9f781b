package membership

import (
	"slices"
	"sync"
	"time"
)

// offersLongest is the longest pause between offers of the leadership, in first pauses.
const offersLongest = 16

// offers says when a node that must not lead may offer the leadership again. It outlives the terms
// of that node. The zero offers are due. Its methods are safe for concurrent use.
type offers struct {
	mu    sync.Mutex
	to    []string // the voters that were there at the last offers
	next  time.Time
	pause time.Duration
}

// areDue reports whether the node may offer the leadership, while those voters are there. It may at
// once if one of them was not there the last time.
func (o *offers) areDue(now time.Time, there []string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !now.Before(o.next) || o.hasNew(there)
}

func (o *offers) hasNew(there []string) bool {
	return slices.ContainsFunc(there, func(id string) bool { return !slices.Contains(o.to, id) })
}

// made takes note of the offers of a term. The pause until the next ones doubles. It is the first
// one again when there were none for a long time, or when a voter has come.
func (o *offers) made(now time.Time, first time.Duration, there []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	longest := offersLongest * first
	if now.Sub(o.next) > longest || o.hasNew(there) {
		o.pause = 0
	}
	o.pause = min(max(2*o.pause, first), longest)
	o.next, o.to = now.Add(o.pause), there
}
