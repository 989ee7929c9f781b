package bench

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
)

// BenchmarkIsolatedLeader cuts off the machine of the leader, without any notice to the others.
// Another node writes one value after another. The benchmark measures the time from the cut to the
// end of the first write that began after it. It is virtual time: processors and disks take none,
// so it is the time that the nodes wait.
func BenchmarkIsolatedLeader(b *testing.B) {
	for _, timing := range []flotilla.Timing{flotilla.LAN, flotilla.Fast, flotilla.Turbo} {
		b.Run(timing.String(), func(b *testing.B) {
			var took []time.Duration
			for trial := range tries(20) {
				inBubble(b, func(t *testing.T) { took = append(took, isolate(t, timing, trial)) })
			}
			reportTrials(b, took)
		})
	}
}

func isolate(t *testing.T, timing flotilla.Timing, trial int) time.Duration {
	c := clustertest.New(t, 3, func(_ int, c *flotilla.Config) {
		c.Timing = timing
		c.Logger = slog.New(slog.DiscardHandler)
	})
	c.Settle()
	leader := c.Leader()
	writer := c.Nodes[(leader+1+trial%2)%3].Storage()
	var cut time.Time
	done := make(chan time.Duration)
	stop := make(chan struct{})
	go func() {
		for i := 0; ; i++ {
			after := false // this write began after the cut
			select {
			case <-stop:
				after = true
			default:
			}
			if err := writer.Store(t.Context(), fmt.Sprintf("bench/%d", i%16), make([]byte, valueSize)); err != nil {
				t.Error(err)
			}
			if after {
				done <- time.Since(cut)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	// The effect depends on the moment within a heartbeat. So every trial waits for another time.
	time.Sleep(3*time.Second + time.Duration(trial)*37*time.Millisecond)
	cut = time.Now()
	c.Isolate(leader)
	close(stop)
	return <-done
}

// inBubble runs f as a test in a synctest bubble. A benchmark cannot open one itself.
func inBubble(b *testing.B, f func(t *testing.T)) {
	b.Helper()
	all := func(_, _ string) (bool, error) { return true, nil }
	if !testing.RunTests(all, []testing.InternalTest{{Name: b.Name(), F: func(t *testing.T) { synctest.Test(t, f) }}}) {
		b.FailNow()
	}
}
