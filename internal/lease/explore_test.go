package lease

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// move is what leads from one state to the next.
type move struct {
	what string // a format
	args [3]int16
}

func (m move) String() string {
	args := make([]any, strings.Count(m.what, "%d"))
	for i := range args {
		args[i] = m.args[i]
	}
	return fmt.Sprintf(m.what, args...)
}

// explorable is a model with states of type W.
type explorable[W comparable] interface {
	next(w W, to func(move, W)) // calls to with every state that may come next
	forget(w W) W               // w without what can make no difference any more
	rename(w W) W               // the state that stands for w and all with other names of equals
	wrong(w W) bool
}

// explore visits every state that can be reached from the first, nearest ones first. It returns how
// many there are and, if one of them is wrong, a shortest way to it.
func explore[W comparable](m explorable[W], first W) (states int, way []move) {
	type arrival struct {
		from int32
		by   move
	}
	seen := map[W]struct{}{m.rename(m.forget(first)): {}}
	arrivals := []arrival{{from: -1}}
	at, edge := 0, []W{m.forget(first)} // the states that were not left yet; the first is number at
	for ; len(edge) > 0 && way == nil; at++ {
		w := edge[0]
		edge = edge[1:]
		m.next(w, func(by move, n W) {
			if n = m.forget(n); n == w || way != nil {
				return
			}
			key := m.rename(n)
			if _, ok := seen[key]; ok {
				return
			}
			seen[key] = struct{}{}
			arrivals = append(arrivals, arrival{int32(at), by})
			edge = append(edge, n)
			if m.wrong(n) {
				for i := int32(len(arrivals) - 1); i > 0; i = arrivals[i].from {
					way = append(way, arrivals[i].by)
				}
				slices.Reverse(way)
			}
		})
	}
	return len(seen), way
}

func logWay(t *testing.T, way []move) {
	t.Helper()
	for i, e := range way {
		t.Logf("%2d. %s", i+1, e)
	}
}
