package replica

import (
	"maps"
	"slices"
	"sync"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// Deaths are the death notices that this node has been given and that are not dealt with yet. Its
// methods are safe for concurrent use.
//
// A node that is elected proposes them together with the first entry of its term: see
// duties.startTerm.
type Deaths struct {
	mu    sync.Mutex
	given map[state.EndByDeathNotice]int // how often it was given
}

// Add adds a death notice until remove is called.
func (d *Deaths) Add(end state.EndByDeathNotice) (remove func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.given[end]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.given[end]--; d.given[end] == 0 {
			delete(d.given, end)
		}
	}
}

// all returns each death notice once, in no order.
func (d *Deaths) all() []state.EndByDeathNotice {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.given))
}
