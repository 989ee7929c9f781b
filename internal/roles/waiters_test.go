package roles

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// A change wakes the waiters of its claims and no others, and two changes before a look wake once.
func TestWaiters(t *testing.T) {
	w := newWaiters()
	ref := func(seq uint64) state.Ref { return state.Ref{Node: "a", Session: 1, Seq: seq} }
	first, second := w.add(ref(1)), w.add(ref(2))
	w.wake([]state.Ref{ref(1), ref(3)})
	w.wake([]state.Ref{ref(1)})
	if d := cmp.Diff([]int{1, 0, 1}, []int{len(first), len(second), w.woken()}); d != "" {
		t.Errorf("woken, and in all: %s", d)
	}
	<-first
	w.remove(ref(1))
	w.wakeAll()
	if d := cmp.Diff([]int{0, 1, 1}, []int{len(first), len(second), w.woken()}); d != "" {
		t.Errorf("after wakeAll: %s", d)
	}
	if d := cmp.Diff([]state.Ref{ref(2)}, w.refs()); d != "" {
		t.Error(d)
	}
}
