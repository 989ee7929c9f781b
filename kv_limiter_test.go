package flotilla_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/kv"
)

// limiters returns the same limiter of each node.
func limiters(t *testing.T, c *clustertest.Cluster, limit kv.Limit) (all []*kv.Limiter) {
	t.Helper()
	for _, n := range c.Nodes {
		l, err := n.KV("b").Limiter("l", limit)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

// press uses a limiter on some nodes, far more than it allows, and returns how much it allowed.
func press(all []*kv.Limiter, nodes []int, d time.Duration) (allowed float64) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for _, i := range nodes {
			if all[i].Allow("k") {
				allowed++
			}
		}
	}
	return allowed
}

// All nodes together allow nearly all of the rate and no more than the bound, on one node or on
// three. The death of the leader adds one burst at most, and stops nobody.
func TestKVLimiter(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := kvCluster(t, nil)
		c.SetLatency(time.Millisecond)
		limit := kv.Limit{Rate: 100, Burst: 30}
		all := limiters(t, c, limit)
		const slices = 3 * 10
		leader := c.Leader()
		for _, step := range []struct {
			name  string
			begin func()
			nodes []int
			extra float64 // what the bound has for faults
		}{
			{"on all", func() {}, []int{0, 1, 2}, 0},
			{"on the leader", func() {}, []int{leader}, 0},
			{"on a follower", func() {}, []int{(leader + 1) % 3}, 0},
			{"the leader dies", func() { c.Kill(leader) }, []int{(leader + 1) % 3, (leader + 2) % 3}, float64(limit.Burst) + limit.Rate},
		} {
			step.begin()
			const seconds = 10
			got := press(all, step.nodes, seconds*time.Second)
			least, most := 0.9*limit.Rate*seconds, limit.Rate*seconds+float64(limit.Burst)+slices+step.extra
			if step.extra > 0 {
				least -= limit.Rate // until there is another leader
			}
			t.Logf("%s: %v were allowed", step.name, got)
			if got < least || got > most {
				t.Errorf("%s: %v were allowed, want from %v to %v", step.name, got, least, most)
			}
		}
	})
}

// A leader that is cut off notices that within two leases. From then on it allows its part of the
// rate, and the others allow all of it.
func TestKVLimiterOfALeaderThatIsCutOff(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := kvCluster(t, nil)
		limit := kv.Limit{Rate: 90, Burst: 60}
		all := limiters(t, c, limit)
		leader := c.Leader()
		c.Isolate(leader)
		const seconds, slice, leases = 10, 10, 1.2
		var got [3]float64
		for end := time.Now().Add(seconds * time.Second); time.Now().Before(end); {
			for i := range all {
				got[i] += press(all, []int{i}, time.Millisecond)
			}
		}
		part := limit.Rate / 3 * seconds
		if most := part + float64(limit.Burst) + slice + limit.Rate*leases; got[leader] < 0.9*part || got[leader] > most {
			t.Errorf("the former leader has allowed %v, want from %v to %v", got[leader], 0.9*part, most)
		}
		others := got[0] + got[1] + got[2] - got[leader]
		if least, most := 0.9*limit.Rate*(seconds-2*leases), limit.Rate*seconds+2*float64(limit.Burst)+2*slice; others < least || others > most {
			t.Errorf("the others have allowed %v, want from %v to %v", others, least, most)
		}
		t.Logf("%v were allowed, n%d is cut off", got, leader)
	})
}

// In a cluster of an older version no node asks the leader, and each keeps to its part of the rate.
func TestKVLimiterOfAnOlderCluster(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := kvCluster(t, func(_ int, cfg *flotilla.Config) { flotilla.SetSupports(cfg, 1) })
		all := limiters(t, c, kv.Limit{Rate: 90, Burst: 60})
		if got := press(all, []int{1}, 10*time.Second); got < 0.9*300 || got > 300+10 {
			t.Errorf("one node has allowed %v, its part is 300 and a slice is 10", got)
		}
	})
}

// A bad limit or name is refused, and the error says which.
func TestKVLimiterMistakes(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		good := kv.Limit{Rate: 1, Burst: 1}
		for _, test := range []struct {
			bucket, name string
			limit        kv.Limit
			says         string // empty: it is good
		}{
			{"b", "l", good, ""},
			{"b", "", good, "name of a limiter"},
			{"b", strings.Repeat("l", 65), good, "name of a limiter"},
			{"b", "\xff", good, "name of a limiter"},
			{"", "l", good, "name of a bucket"},
			{"b", "l", kv.Limit{Burst: 1}, "Limit.Rate is 0"},
			{"b", "l", kv.Limit{Rate: 1}, "Limit.Burst is 0"},
			{"b", "l", kv.Limit{Rate: 1000, Burst: 99}, "it must be 100 at least"},
		} {
			l, err := c.Nodes[0].KV(test.bucket).Limiter(test.name, test.limit)
			switch {
			case test.says == "" && (err != nil || !l.Allow("k")):
				t.Errorf("%q %q %v: %v", test.bucket, test.name, test.limit, err)
			case test.says != "" && (!errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), test.says) || !strings.HasPrefix(err.Error(), "flotilla: ")):
				t.Errorf("%q %q %v: %v, want %q", test.bucket, test.name, test.limit, err, test.says)
			}
		}
	})
}
