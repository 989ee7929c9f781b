package roles

import (
	"maps"
	"slices"
	"sync"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// waiters are the claims of this node that wait to be granted.
type waiters struct {
	mu      sync.Mutex
	waiting map[state.Ref]chan struct{} // receives when the claim should be looked at; buffered
	wakeups int                         // how often wake has woken a waiter
}

func newWaiters() *waiters { return &waiters{waiting: make(map[state.Ref]chan struct{})} }

// add registers a claim that waits. The returned channel receives when the claim should be looked
// at.
func (w *waiters) add(ref state.Ref) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := make(chan struct{}, 1)
	w.waiting[ref] = c
	return c
}

// remove undoes add.
func (w *waiters) remove(ref state.Ref) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting, ref)
}

// wake has those of the given claims looked at that wait here.
func (w *waiters) wake(refs []state.Ref) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ref := range refs {
		if c := w.waiting[ref]; c != nil && signal(c) {
			w.wakeups++
		}
	}
}

// wakeAll has every claim looked at that waits here.
func (w *waiters) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.waiting {
		signal(c)
	}
}

// signal sends on a buffered channel. It reports false if the channel is full.
func signal(c chan<- struct{}) bool {
	select {
	case c <- struct{}{}:
		return true
	default:
		return false
	}
}

// refs returns the claims that wait.
func (w *waiters) refs() []state.Ref {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.waiting))
}

// woken returns how often wake has woken a waiter.
func (w *waiters) woken() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wakeups
}
