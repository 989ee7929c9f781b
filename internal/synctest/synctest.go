// Package synctest is testing/synctest for this module's tests, without what makes the race detector of Go 1.26 crash now and then.
//
// There, all timers of a bubble share one context of the race detector. A timer that is due at once, or whose channel is looked at
// when it is overdue, runs on the thread of the goroutine that set it or looks, beside those that the bubble's
// clock runs on another. Two threads in one context are nothing that the detector can bear: it ends the process with a
// SIGSEGV in __tsan::SlotLock, or says that a CHECK failed. Since Go 1.27 timers use the context of their thread's P.
package synctest

import (
	"testing"
	"testing/synctest"
)

// Test is synctest.Test, with one P alone where two could crash the race detector: then no two timers run at a time.
// Bubbles beside each other would end each other's restriction, so with such a race detector tests must not be parallel.
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	defer restrict()()
	synctest.Test(t, f)
}

// Wait is synctest.Wait.
func Wait() { synctest.Wait() }
