package clustertest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// The holder of a role has a slow clock, the others have fast ones, and it is cut off. Its lease
// lasts longer by the true time, and the role is granted again after that all the same.
func TestRate(t *testing.T) {
	synctest.Parallel(t)
	lasted := map[float64]time.Duration{}
	for _, rate := range []float64{0.99, 1.01} {
		inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
			c.KillAll()
			for i := range 3 {
				c.Clock(i).Rate(2 - rate)
			}
			c.Clock(0).Rate(rate)
			for i := range 3 {
				c.Restart(i)
			}
			c.Settle()
			got, lost := hold(t, c.Nodes[0], "r")
			tenure := <-got
			next, _ := hold(t, c.Nodes[1], "r")
			for range 200 {
				time.Sleep(time.Millisecond)
				lasted[rate] = max(lasted[rate], time.Until(tenure.Deadline()))
			}
			c.Isolate(0)
			end := <-lost
			<-next
			if deadline := tenure.Deadline(); end.After(deadline) || time.Now().Before(deadline) {
				t.Errorf("rate %v: lost %v before the deadline, and granted again %v after it", rate, deadline.Sub(end), time.Since(deadline))
			}
		})
	}
	if slow, fast := lasted[0.99], lasted[1.01]; slow-fast < 8*time.Millisecond || slow-fast > 16*time.Millisecond {
		t.Errorf("leases of 600 ms last %v by a slow clock and %v by a fast one", slow, fast)
	}
}

// A wall clock that jumps is noticed and reported, and nothing else happens.
func TestJump(t *testing.T) {
	synctest.Parallel(t)
	inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
		term := c.Nodes[c.Leader()].Status().Term
		got, _ := hold(t, c.Nodes[0], "r")
		tenure := <-got
		c.Clock(0).Jump(3 * time.Hour)
		eventually(t, "it says that its clock is wrong", func() bool { return strings.Contains(c.Nodes[0].Status().Clock, "3h0m0s ahead") })
		eventually(t, "others see it", func() bool {
			for _, m := range c.Nodes[1].Status().Members {
				if m.Name == "n0" {
					return m.ClockAhead.Round(time.Second) == 3*time.Hour
				}
			}
			return false
		})
		time.Sleep(time.Minute)
		if time.Until(tenure.Deadline()) <= 0 || c.Nodes[c.Leader()].Status().Term != term {
			t.Error("a lease or a term has ended")
		}
		c.Clock(0).Jump(-3 * time.Hour)
		eventually(t, "all clocks agree", func() bool { return c.Nodes[0].Status().Clock == "" })
	})
}
