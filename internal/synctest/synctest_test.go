package synctest

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

// Overdue timers run on the threads of the goroutines that read them: on many, if there are many.
// With two threads, testing/synctest of Go 1.26 seldom survives this test under the race detector.
func TestOverdueTimers(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for range 100 {
		Test(t, func(t *testing.T) {
			var wg sync.WaitGroup
			for range 300 {
				wg.Go(func() {
					timer := time.NewTimer(time.Millisecond)
					for range 20 {
						time.Sleep(time.Second)
						select {
						case <-timer.C:
						default:
							t.Error("a timer is not due after its time")
						}
						timer.Reset(time.Millisecond)
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestRestriction(t *testing.T) {
	procs := max(2, runtime.NumCPU())
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
	inside := procs
	if restricts {
		inside = 1
	}
	t.Run("in a bubble that is left early", func(t *testing.T) {
		Test(t, func(t *testing.T) {
			if got := runtime.GOMAXPROCS(0); got != inside {
				t.Errorf("%d Ps in a bubble, want %d", got, inside)
			}
			t.Skip("on purpose: this leaves the bubble early")
		})
	})
	if got := runtime.GOMAXPROCS(0); got != procs {
		t.Errorf("%d Ps after it, want %d", got, procs)
	}
}
