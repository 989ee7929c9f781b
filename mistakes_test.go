package flotilla_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A node whose joining was begun by a leader that lost its place joins with the next one. That it
// is told so only when that is committed is for TestJoiningIsCommittedFirst.
func TestJoinThatIsNotCommitted(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		time.Sleep(5 * time.Second)
		l := c.Leader()
		a, b := (l+1)%3, (l+2)%3
		c.Block(l, a)
		c.Block(l, b)
		j := c.Add(nil)
		time.Sleep(2500 * time.Millisecond)
		c.Heal()
		c.Settle() // must become ready
		store(t, c.Nodes[j], "k", "1")
	})
}

// A node of another cluster that was started here by mistake harms nobody but itself.
func TestForeignNodeRefusesNobody(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		secret := flotilla.NewSecret()
		same := func(i int, cfg *flotilla.Config) { cfg.Secrets = []flotilla.Secret{secret} }
		a := clustertest.New(t, 1, same)
		a.Settle()
		a.Kill(0)
		b := clustertest.New(t, 3, same)
		b.Settle()
		i := b.Add(func(_ int, cfg *flotilla.Config) { same(0, cfg); cfg.Dir = a.Config(0).Dir })
		wantFailure(t, b.Nodes[i], "belongs to the cluster")
		b.Kill(0)
		b.Kill(1)
		time.Sleep(10 * time.Second)
		b.Restart(0)
		b.Restart(1)
		time.Sleep(20 * time.Second)
		wantReady(t, b.Nodes[:3])
	})
}

// Nor does a copy of a directory, which is refused while the original lives.
func TestCopyIsRefused(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) {
			cfg.Peers = flotilla.Static("n0:7373", "n1:7373", "n2:7373", "n3:7373")
		})
		c.Settle()
		c.Kill(1)
		copied := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(copied, os.DirFS(c.Config(1).Dir)); err != nil {
			t.Fatal(err)
		}
		c.Restart(1)
		c.Settle()
		i := c.Add(func(_ int, cfg *flotilla.Config) { cfg.Dir = copied })
		wantFailure(t, c.Nodes[i], "one of the two data directories is a copy")
		c.Kill(0)
		c.Kill(2)
		time.Sleep(10 * time.Second)
		c.Restart(0)
		c.Restart(2)
		time.Sleep(20 * time.Second)
		wantReady(t, c.Nodes[:3])
	})
}

// Nor does a node that has lost its directory, and has formed a cluster of its own while it was
// alone.
func TestEmptyNodeRefusesNobody(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(i int, cfg *flotilla.Config) {})
		c.Settle()
		store(t, c.Nodes[0], "k", "1")
		for i := range 3 {
			c.Kill(i)
		}
		c.Config(2).Dir += "-wiped"
		c.Config(2).Expect = 0
		c.Restart(2)
		time.Sleep(10 * time.Second)
		c.Restart(0)
		c.Restart(1)
		time.Sleep(30 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := c.Nodes[0].Storage().Store(ctx, "k", nil); err != nil {
			t.Errorf("two of three have their directories: %v", err)
		}
	})
}

// A node may not leave when those who stay could not commit it: nothing could be after that.
func TestLeaveThatWouldCostTheQuorum(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		time.Sleep(5 * time.Second)
		l := c.Leader()
		c.Kill((l + 1) % 3)
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := c.Nodes[(l+2)%3].Leave(ctx)
		cancel()
		if err == nil || !strings.Contains(err.Error(), "start the others first") {
			t.Errorf("Leave says %v", err)
		}
		time.Sleep(30 * time.Second)
		ctx, cancel = context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := c.Nodes[l].Storage().Store(ctx, "k", nil); err != nil {
			t.Errorf("two of three live, and: %v", err)
		}
	})
}

// A lock whose Unlock got no answer is free in the end.
func TestUnlockWithoutAnswer(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		time.Sleep(5 * time.Second)
		n := (c.Leader() + 1) % 3
		if err := c.Nodes[n].Storage().Lock(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		c.Isolate(n)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if err := c.Nodes[n].Storage().Unlock(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Unlock says that it was heard, by nobody: %v", err)
		}
		cancel()
		c.Heal()
		c.Settle()
		time.Sleep(10 * time.Minute)
		ok, err := c.Nodes[(n+1)%3].Storage().TryLock(t.Context(), "x")
		if !ok || err != nil {
			t.Errorf("ten minutes after: %v %v", ok, err)
		}
	})
}

// So is the place in the queue of one who gave up waiting, however long there was no quorum.
func TestClaimIsWithdrawnInTheEnd(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		time.Sleep(5 * time.Second)
		n := (c.Leader() + 1) % 3
		m := (c.Leader() + 2) % 3
		if err := c.Nodes[m].Storage().Lock(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Nodes[n].Storage().Lock(ctx, "x") }()
		time.Sleep(time.Second)
		c.Partition([]int{0}, []int{1}, []int{2})
		time.Sleep(2 * time.Second)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the waiter gets %v", err)
		}
		time.Sleep(40 * time.Second)
		c.Heal()
		c.Settle()
		if err := c.Nodes[m].Storage().Unlock(t.Context(), "x"); err != nil && !errors.Is(err, flotilla.ErrLost) {
			t.Error(err)
		}
		time.Sleep(10 * time.Minute)
		ok, err := c.Nodes[m].Storage().TryLock(t.Context(), "x")
		if !ok || err != nil {
			t.Errorf("ten minutes after: %v %v", ok, err)
		}
	})
}

// The only voter leaves when another has become one.
func TestLeaveOfTheOnlyVoter(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		c.Add(nil)
		c.Settle()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		start := time.Now()
		err := c.Nodes[0].Leave(ctx)
		if err != nil {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// Writers at the same moment cannot pass the limit together, and locks count.
func TestQuotaHoldsForAllAtOnce(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { cfg.MaxState = 1 << 20 })
		c.Settle()
		var wg sync.WaitGroup
		for i := range 24 {
			wg.Go(func() {
				c.Nodes[i%3].Storage().Store(t.Context(), fmt.Sprintf("%d", i), make([]byte, 512<<10))
			})
		}
		wg.Wait()
		keys, _ := c.Nodes[0].Storage().List(t.Context(), "", true)
		if len(keys) > 2 {
			t.Fatalf("%d values of 512 KiB in a state of 1 MiB", len(keys))
		}
		locks, refused := 0, 0
		for i := 0; i < 1500 && refused < 10; i++ {
			name := fmt.Sprintf("%01000d", i)
			if ok, err := c.Nodes[0].Storage().TryLock(t.Context(), name); ok && err == nil {
				locks++
			} else {
				refused++
			}
		}
		if locks*1000 > 1<<20 {
			t.Errorf("%d locks with names of 1000 bytes", locks)
		}
	})
}

// A node that did not hear another move goes by what the cluster has recorded.
func TestStaleAddress(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	shown := false
	for i := 0; i < 12 && (!shown || i < flotilla.Cases(t, 12, 3)); i++ {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 3, nil)
			c.Settle()
			time.Sleep(5 * time.Second)
			o := c.Leader()
			x, f := (o+1)%3, (o+2)%3
			c.Kill(x)
			time.Sleep(3 * time.Second)
			c.Config(x).Addr = ":8484"
			c.Restart(x)
			c.Block(x, f)
			c.Block(f, x)
			time.Sleep(10 * time.Second)
			c.Heal()
			c.Settle()
			time.Sleep(30 * time.Second)
			c.Stop(o)
			time.Sleep(2 * time.Second)
			if c.Leader() != x {
				return
			}
			shown = true
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := c.Nodes[f].Storage().Store(ctx, "k", nil); err != nil {
				t.Error(err)
			}
		})
	}
	if !shown {
		t.Error("the node that had moved never came to lead: nothing was shown")
	}
}

// A new node forms nothing beside members that are only just starting.
func TestFormationBesideAStartingCluster(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for range flotilla.Cases(t, 8, 3) {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 2, nil)
			c.Settle()
			time.Sleep(3 * time.Second)
			c.Kill(0)
			c.Isolate(1)
			c.Restart(0) // greets n1 for up to a second before it starts raft
			j := c.Add(func(_ int, cfg *flotilla.Config) { cfg.Peers = flotilla.Static("n0:7373") })
			time.Sleep(3 * time.Second)
			c.Heal()
			time.Sleep(20 * time.Second)
			if a, b := c.Nodes[0].Status(), c.Nodes[j].Status(); a.Cluster != b.Cluster {
				t.Errorf("two clusters: %s and %s; n0 says %q", a.Cluster, b.Cluster, a.Err)
			}
		})
	}
}

// A node that has promised itself to a cluster joins no other.
func TestPromiseIsKept(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for range 4 {
		synctest.Test(t, func(t *testing.T) {
			all := flotilla.Static("n0:7373", "n1:7373", "n2:7373", "n3:7373")
			c := clustertest.New(t, 4, func(i int, cfg *flotilla.Config) {
				cfg.Expect, cfg.Peers = 3, all
				if i == 3 {
					cfg.Expect, cfg.Peers = 1, nil
				}
			})
			c.SetLatency(5 * time.Millisecond)
			order := []int{0, 1, 2}
			slices.SortFunc(order, func(a, b int) int { return strings.Compare(c.Nodes[a].Status().ID, c.Nodes[b].Status().ID) })
			p, mid, last := order[0], order[1], order[2]
			for i := range 3 {
				c.Block(i, 3)
				c.Block(3, i)
				if i != last {
					c.Block(i, last)
					c.Block(last, i)
				}
			}
			time.Sleep(5 * time.Second) // n3 is a cluster of its own; the others miss one
			for _, i := range []int{p, mid} {
				c.Unblock(i, last)
				c.Unblock(last, i)
			}
			for k := 0; ; k++ {
				b, _ := os.ReadFile(filepath.Join(c.Config(last).Dir, "node"))
				if strings.Contains(string(b), `"promised"`) {
					break
				}
				if k > 10000 {
					t.Fatal("no promise")
				}
				time.Sleep(200 * time.Microsecond)
			}
			c.Block(last, p)
			c.Unblock(mid, 3)
			c.Unblock(3, mid)
			for k := 0; k < 3000 && c.Nodes[mid].Status().Cluster == ""; k++ {
				time.Sleep(time.Millisecond)
			}
			c.Unblock(last, p)
			time.Sleep(10 * time.Second)
			if s := c.Nodes[p].Status(); s.Cluster != "" && s.Cluster != c.Nodes[mid].Status().Cluster {
				t.Errorf("n%d promised itself to n%d's cluster, which was formed with it, and is in another", mid, p)
			}
		})
	}
}

// A member that has much to catch up with holds no writer up.
func TestCatchingUpHoldsNobodyUp(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { cfg.Timing = flotilla.WAN })
		c.Settle()
		time.Sleep(5 * time.Second)
		l := c.Leader()
		x := (l + 1) % 3
		c.Kill(x)
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				for k := range 60 {
					store(t, c.Nodes[l], fmt.Sprintf("%d/%d", i, k), "")
				}
			})
		}
		wg.Wait()
		c.SetLatency(50 * time.Millisecond)
		time.Sleep(time.Second)
		c.Restart(x)
		var worst time.Duration
		for range 100 {
			start := time.Now()
			store(t, c.Nodes[l], "k", "1")
			worst = max(worst, time.Since(start))
		}
		if worst > time.Second {
			t.Errorf("a write took %v while a member caught up", worst)
		}
	})
}

// Shutdown, Leave and Close at once, at any step, during writes and locks.
func TestEndsAtOnce(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for seed := range 12 {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 3, nil)
			time.Sleep(time.Duration(seed*seed) * time.Millisecond)
			var wg sync.WaitGroup
			n := c.Nodes[seed%3]
			for k := range 6 {
				wg.Go(func() { n.Storage().Store(t.Context(), fmt.Sprint(k), nil) })
				wg.Go(func() { n.Storage().Lock(t.Context(), "x") })
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			wg.Go(func() { n.Shutdown(ctx) })
			wg.Go(func() { n.Leave(ctx) })
			wg.Go(func() { time.Sleep(time.Duration(seed) * time.Millisecond); n.Close() })
			wg.Wait()
		})
	}
}

// wantReady checks that these nodes take part in their cluster.
func wantReady(t *testing.T, nodes []*flotilla.Node) {
	t.Helper()
	for _, n := range nodes {
		if s := n.Status(); s.Err != "" || !s.Ready {
			t.Errorf("%s: ready %v, %s", s.Name, s.Ready, s.Err)
		}
	}
}
