// Package synctest is testing/synctest for the tests of this module. It avoids crashes of the race
// detector of Go 1.26.
//
// There, all timers of a bubble share one context of the race detector. The clock of the bubble
// runs timers on one thread. A timer that is due at once, or whose channel is read when it is
// overdue, runs on the thread of the goroutine that sets or reads it. The detector does not support
// two threads in one context: it ends the process with a SIGSEGV in __tsan::SlotLock, or with a
// failed CHECK. Since Go
// 1.27 timers use the context of the P of their thread.
package synctest

import (
	"testing"
	"testing/synctest"
)

// Test is synctest.Test. Where the race detector could crash it uses only one P, so that no two
// timers run at a time. Bubbles that run at the same time would end each other's restriction, so
// tests use Parallel.
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	defer restrict()()
	synctest.Test(t, f)
}

// Parallel is t.Parallel, for a test that calls Test later. It does nothing where the race detector
// could crash. One bubble keeps only one processor busy, so tests in parallel are faster.
func Parallel(t *testing.T) {
	if !restricts {
		t.Parallel()
	}
}

// Wait is synctest.Wait.
func Wait() { synctest.Wait() }

// InBubble reports whether the caller is in a bubble. There it waits as Wait does.
func InBubble() (in bool) {
	defer func() { in = recover() == nil }() // Wait panics outside of a bubble
	synctest.Wait()
	return true
}
