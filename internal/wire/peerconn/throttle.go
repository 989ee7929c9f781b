package peerconn

import (
	"sync"
	"time"
)

// Throttle lets one log line per key pass in each interval.
type Throttle struct {
	every time.Duration

	mu   sync.Mutex
	last map[string]time.Time
}

// NewThrottle returns a throttle with the given interval.
func NewThrottle(every time.Duration) *Throttle {
	return &Throttle{every: every, last: make(map[string]time.Time)}
}

// Pass reports whether a line for key may be logged now. It remembers 1024 keys; when there are
// more it forgets all of them.
func (t *Throttle) Pass(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if last, ok := t.last[key]; ok && now.Sub(last) < t.every {
		return false
	}
	if len(t.last) >= 1024 {
		clear(t.last)
	}
	t.last[key] = now
	return true
}
