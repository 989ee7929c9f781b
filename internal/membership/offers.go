package membership

import (
	"sync"
	"time"
)

// offersLongest is the longest pause between offers of the leadership, in first pauses.
const offersLongest = 16

// offers says when a node that must not lead may offer the leadership again. It outlives the terms
// of that node. The zero offers are due. Its methods are safe for concurrent use.
type offers struct {
	mu    sync.Mutex
	next  time.Time
	pause time.Duration
}

// areDue reports whether the node may offer the leadership.
func (o *offers) areDue(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !now.Before(o.next)
}

// made takes note of the offers of a term. The pause until the next ones doubles, and is the first
// one again when there were none for a long time.
func (o *offers) made(now time.Time, first time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	longest := offersLongest * first
	if now.Sub(o.next) > longest {
		o.pause = 0
	}
	o.pause = min(max(2*o.pause, first), longest)
	o.next = now.Add(o.pause)
}
