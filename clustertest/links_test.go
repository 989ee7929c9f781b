package clustertest_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// Each fault of a link from the leader makes a write take longer by what it says, and Heal undoes
// it. The value is large, so that bandwidth counts.
func TestLinks(t *testing.T) {
	synctest.Parallel(t)
	value := strings.Repeat("x", 10_000)
	for _, tt := range []struct {
		name       string
		fault      func(*clustertest.Link)
		least, max time.Duration
	}{
		{"delay", func(l *clustertest.Link) { l.Delay(50 * time.Millisecond) }, 50 * time.Millisecond, 200 * time.Millisecond},
		{"bandwidth", func(l *clustertest.Link) { l.Bandwidth(100_000) }, 100 * time.Millisecond, 200 * time.Millisecond},
		{"duplicates", func(l *clustertest.Link) { l.Duplicate(1); l.Bandwidth(100_000) }, 200 * time.Millisecond, 400 * time.Millisecond},
		{"duplicates alone", func(l *clustertest.Link) { l.Duplicate(1) }, 0, 10 * time.Millisecond},
		{"jitter", func(l *clustertest.Link) { l.Jitter(50 * time.Millisecond) }, 2 * time.Millisecond, 200 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
				leader := c.Leader()
				a, b := others(leader)
				healthy := store(t, c.Nodes[leader], "k", value)
				tt.fault(c.Link(leader, a))
				tt.fault(c.Link(leader, b))
				if took := store(t, c.Nodes[leader], "k", value); took < tt.least || took > tt.max {
					t.Errorf("a write took %v, want from %v to %v", took, tt.least, tt.max)
				}
				c.Heal()
				time.Sleep(time.Second)
				if took := store(t, c.Nodes[leader], "k", value); took > healthy+time.Millisecond {
					t.Errorf("a write took %v after the links were healed, and %v before", took, healthy)
				}
			})
		})
	}
}

// A delay is one way, and of one link.
func TestLinkIsOneWay(t *testing.T) {
	synctest.Parallel(t)
	inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
		leader := c.Leader()
		a, b := others(leader)
		c.Link(a, b).Delay(time.Second)
		c.Link(b, a).Delay(time.Second)
		if took := store(t, c.Nodes[leader], "k", "1"); took > 10*time.Millisecond {
			t.Errorf("a write that does not use the link took %v", took)
		}
		c.Link(a, leader).Delay(100 * time.Millisecond)
		if took := store(t, c.Nodes[a], "k", "2"); took < 100*time.Millisecond || took > 350*time.Millisecond {
			t.Errorf("a write whose request takes 100 ms took %v", took) // and what a says to have applied
		}
		c.Link(a, leader).Delay(0)
		if took := store(t, c.Nodes[a], "k", "3"); took > 10*time.Millisecond {
			t.Errorf("a write took %v after the delay was undone", took)
		}
	})
}

// With losses on every link some writes take as long as it takes to send a packet again. Two losses
// in a row can cost a lease. In the end all is well.
func TestLoss(t *testing.T) {
	synctest.Parallel(t)
	inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
		for from := range 3 {
			for to := range 3 {
				c.Link(from, to).Loss(0.05)
			}
		}
		late := 0
		for range 100 {
			start := time.Now()
			err := flotilla.ErrLost
			for errors.Is(err, flotilla.ErrLost) {
				err = c.Nodes[c.Leader()].Storage().Store(t.Context(), "k", []byte("lossy"))
			}
			if err != nil {
				t.Error(err)
			}
			if time.Since(start) >= 200*time.Millisecond {
				late++
			}
		}
		if late == 0 || late > 50 {
			t.Errorf("%d of 100 writes waited for a packet to be sent again", late)
		}
		c.Heal()
		c.Settle()
		wantEverywhere(t, c, "k", "lossy")
	})
}
