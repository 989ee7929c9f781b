package clustertest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/clustertest"
)

// Thirty seconds of all faults, one after another and together: what was acknowledged is there at
// the end, on every node. A test of a program may look like this one.
func TestScheduleOfFaults(t *testing.T) {
	if os.Getenv("CLUSTERTEST_SEED") == "" {
		t.Setenv("CLUSTERTEST_SEED", "1") // the same schedule each time
	}
	inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
		s := &schedule{c: c, Rand: c.Rand()}
		start, steps, acknowledged := time.Now(), 0, make(map[string]bool)
		for ; time.Since(start) < 30*time.Second; steps++ {
			if s.IntN(2) == 0 {
				s.mend()
			}
			undo := s.fault(s.IntN(3))
			for range 3 {
				key := fmt.Sprintf("%d/%d", steps, len(acknowledged))
				live := c.Live()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				if c.Nodes[live[s.IntN(len(live))]].Storage().Store(ctx, key, []byte(key)) == nil {
					acknowledged[key] = true
				}
				cancel()
			}
			undo()
		}
		s.mend()
		c.Settle()
		for key := range acknowledged {
			wantEverywhere(t, c, key, key)
		}
		t.Logf("%d steps, %d writes", steps, len(acknowledged))
		if steps < 5 || len(acknowledged) < 10 {
			t.Error("this shows little")
		}
	})
}

// schedule draws faults.
type schedule struct {
	*rand.Rand
	c *clustertest.Cluster
}

// some draws a time.
func (s *schedule) some(most time.Duration) time.Duration {
	return time.Duration(s.Int64N(int64(most)))
}

// mend undoes all faults but those of processes.
func (s *schedule) mend() {
	s.c.Heal()
	for i := range s.c.Nodes {
		s.c.Disk(i).Slow(0)
		s.c.Disk(i).Fail(false)
	}
}

// fault breaks something of node i. Faults of links and disks stay until mend. What is wrong with
// processes is over after undo.
func (s *schedule) fault(i int) (undo func()) {
	c, to := s.c, (i+1+s.IntN(2))%3
	restart := func() { c.Restart(i) }
	switch s.IntN(9) {
	case 0:
		c.Link(i, to).Delay(s.some(300 * time.Millisecond))
		c.Link(i, to).Jitter(s.some(300 * time.Millisecond))
	case 1:
		c.Link(i, to).Loss(s.Float64() / 2)
	case 2:
		c.Isolate(i)
	case 3:
		c.Disk(i).Slow(s.some(2 * time.Second))
	case 4:
		c.Disk(i).Fail(true)
	case 5:
		c.Pause(i)
		return func() { c.Resume(i) }
	case 6:
		s.mend()
		c.Disk(i).LoseUnsynced()
		c.Kill(i)
		return restart
	case 7:
		s.mend()
		c.Settle()
		c.KillAt(i, clustertest.BeforeSync)
		return func() { c.AwaitKill(i); restart() }
	case 8:
		s.mend()
		c.KillAll()
		for i := range c.Nodes {
			c.Restart(i)
		}
	}
	return func() {}
}
