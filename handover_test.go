package flotilla

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// shutdownAll shuts nodes down, each so long after the one before it, and returns how long the
// longest took.
func shutdownAll(t *testing.T, nodes []*Node, gap time.Duration) time.Duration {
	t.Helper()
	var ends sync.WaitGroup
	var mu sync.Mutex
	var longest time.Duration
	for i, n := range nodes {
		ends.Go(func() {
			<-time.After(time.Duration(i) * gap)
			ctx, cancel := context.WithTimeout(context.Background(), handOverTime)
			defer cancel()
			begun := time.Now()
			if err := n.Shutdown(ctx); err != nil {
				t.Errorf("%s, number %d to go: %v after %v", n.self.Name, i+1, err, time.Since(begun))
			}
			mu.Lock()
			defer mu.Unlock()
			longest = max(longest, time.Since(begun))
		})
	}
	ends.Wait()
	return longest
}

// All nodes are stopped at once, in every order: none fails, and none waits for somebody to hand
// over to.
func TestShutdownOfAll(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	orders := [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}
	for _, gap := range []time.Duration{0, time.Millisecond, 15 * time.Millisecond, 80 * time.Millisecond, 400 * time.Millisecond} {
		for _, order := range Some(t, orders, 2) {
			t.Run(fmt.Sprintf("%v %v", gap, order), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					net := simnet.New()
					net.SetLatency(time.Millisecond)
					nodes := trio(t, net, nil)
					leader, others := leaderOf(t, nodes) // 0 in the order
					all := append([]*Node{leader}, others...)
					for _, n := range all {
						got := holdUntil(t.Context(), n, Role{Name: "of " + n.self.Name})
						<-got
					}
					var going []*Node
					for _, i := range order {
						going = append(going, all[i])
					}
					// A role that nobody gives up early is held for about a fifth of the lease.
					if took := shutdownAll(t, going, gap); took > 2*nodes[0].timing.Lease {
						t.Errorf("it took %v", took)
					}
				})
			})
		}
	}
}

// When the nodes that stay are no majority, there is no node to hand over to. It does not matter
// which node leads.
func TestShutdownOfMost(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, leads := range []bool{true, false} {
		t.Run(fmt.Sprintf("leader among them %v", leads), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nodes := trio(t, simnet.New(), func(c *Config) { c.Dir = "" })
				leader, others := leaderOf(t, nodes)
				going := others
				if leads {
					going = []*Node{leader, others[0]}
				}
				if took := shutdownAll(t, going, 0); took > nodes[0].timing.Lease {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// Two of five leave at once, and the others go on without a pause: the leadership is not left with
// one who leaves.
func TestShutdownOfSome(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := fleet(t, simnet.New(), []string{"a", "b", "c", "d", "e"}, nil)
		leader, others := leaderOf(t, nodes)
		slices.SortFunc(others, func(a, b *Node) int { return slices.Compare([]byte(a.self.ID), []byte(b.self.ID)) })
		if took := shutdownAll(t, []*Node{leader, others[0]}, 0); took > leader.timing.Lease {
			t.Errorf("it took %v", took)
		}
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := others[2].storage.Store(ctx, "x", []byte("y")); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > leader.timing.Lease {
			t.Errorf("the next write took %v", took)
		}
		for _, n := range others[1:] {
			if s := n.store.State(); s.Session(leader.self.ID) != nil || s.Session(others[0].self.ID) != nil {
				t.Errorf("%s knows a session of one that has left", n.self.Name)
			}
		}
	})
}

// A node whose cluster is gone does not wait for it, and nor does one that has never found its
// cluster.
func TestShutdownAlone(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	quick := func(t *testing.T, n *Node) {
		t.Helper()
		if took := shutdownAll(t, []*Node{n}, 0); took > n.timing.HandOver() {
			t.Errorf("it took %v", took)
		}
	}
	t.Run("the others were killed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			net := simnet.New()
			nodes := trio(t, net, nil)
			for _, n := range nodes[1:] {
				net.Host(n.self.Name).Crash()
				n.Close()
			}
			time.Sleep(3 * time.Second)
			quick(t, nodes[0])
		})
	})
	t.Run("the others were killed just now", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			net := simnet.New()
			nodes := trio(t, net, nil)
			for _, n := range nodes[1:] {
				n.Close()
			}
			quick(t, nodes[0])
		})
	})
	t.Run("the others cannot be reached", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			net := simnet.New()
			nodes := trio(t, net, nil)
			net.Isolate("a")
			time.Sleep(3 * time.Second)
			quick(t, nodes[0])
		})
	})
	t.Run("the others were never there", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			host := simnet.New().Host("a")
			n, err := Open(t.Context(), Config{
				Dir: t.TempDir(), Name: "a", Secrets: []Secret{NewSecret()}, Peers: Static("a:7373", "b:7373", "c:7373"), Expect: 3, PeerListen: host.Listen, PeerDial: host.Dial,
			})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			quick(t, n)
		})
	})
	t.Run("there are no others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { quick(t, fleet(t, simnet.New(), []string{"a"}, nil)[0]) })
	})
	t.Run("a member that has restarted alone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			nodes := trio(t, simnet.New(), nil)
			cfg := nodes[0].cfg
			shutdownAll(t, nodes, 0)
			n, err := Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			quick(t, n)
		})
	})
	t.Run("a member that has restarted alone and knows more than its snapshot", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			nodes := trio(t, simnet.New(), nil)
			if err := nodes[0].replica.Snapshots.Take(t.Context()); err != nil {
				t.Fatal(err)
			}
			mustStore(t, nodes[0], "k", "1")
			time.Sleep(time.Minute)
			for _, n := range nodes {
				n.Close()
			}
			n, err := Open(t.Context(), nodes[0].cfg)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			if newest, err := n.replica.Snapshots.Newest(); err != nil || newest == 0 || newest >= n.store.State().Index {
				t.Fatalf("the newest snapshot, %d, has all: %v", newest, err)
			}
			quick(t, n)
		})
	})
}

// A node whose leave was not confirmed stays, and the others hand over to it again.
func TestLeaveThatFailsIsTakenBack(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		leader, others := leaderOf(t, nodes)
		net.Isolate(others[1].self.Name)
		time.Sleep(3 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := others[0].Leave(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v, want one that says that the cluster has not confirmed it", err)
		}
		net.Heal()
		for _, n := range nodes {
			mustBeReady(t, n)
		}
		time.Sleep(time.Second)
		if !leader.replica.MajorityStays() {
			t.Error("the node that stays is still taken for one that leaves")
		}
		if took := shutdownAll(t, []*Node{leader}, 0); took > leader.timing.Lease {
			t.Errorf("it took %v", took)
		}
	})
}

// Serve of all nodes ends at once: no error, and no longer than its own grace and a moment.
func TestServeOfAllEnds(t *testing.T) {
	SkipShort(t)
	cfgs := realTrio(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, len(cfgs))
	for _, cfg := range cfgs {
		go func() { ended <- Serve(ctx, cfg, http.NotFoundHandler(), "app.test") }()
	}
	for i := range cfgs {
		for code := 0; code != 200; code, _, _ = readyz(cfgs[i]) {
			select {
			case err := <-ended:
				t.Fatal(err)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	begun := time.Now()
	stop()
	for range cfgs {
		if err := <-ended; err != nil {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	}
	t.Logf("it took %v", time.Since(begun))
}
