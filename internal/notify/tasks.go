package notify

import "sync"

// Tasks are the goroutines of one owner, such as a node. The zero Tasks is ready. Its methods are
// safe for concurrent use.
type Tasks struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// Go runs f on a goroutine of its own. After Close has been called, Go does nothing.
func (t *Tasks) Go(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.wg.Go(f)
	}
}

// Close waits for the goroutines that run, and lets no other one start. It must not be called by
// one of them.
func (t *Tasks) Close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.wg.Wait()
}
