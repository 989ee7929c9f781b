package flotilla_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// The time in which a leader whose machine is cut off is replaced, as a writer on another node sees
// it.
func TestLeaderIsCutOff(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, test := range []struct {
		timing flotilla.Timing
		limit  time.Duration
	}{
		{flotilla.LAN, 750 * time.Millisecond},
		{flotilla.Fast, 260 * time.Millisecond},
		{flotilla.Turbo, 120 * time.Millisecond},
	} {
		t.Run(test.timing.String(), func(t *testing.T) {
			for range flotilla.Cases(t, 30, 3) {
				synctest.Test(t, func(t *testing.T) {
					c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { cfg.Timing = test.timing })
					c.Settle()
					// any moment between two renewals, and two heartbeats
					time.Sleep(3*time.Second + rand.N(time.Second))
					old := c.Leader()
					c.Isolate(old)
					start := time.Now()
					store(t, c.Nodes[(old+1)%3], "k", "1")
					if took := time.Since(start); took > test.limit {
						t.Errorf("the first write after the leader was cut off took %v, want at most %v", took, test.limit)
					}
					c.Heal()
					c.Settle()
					wantEverywhere(t, c, "k", "1")
				})
			}
		})
	}
}

// A follower that is cut off holds writes up no longer than a lease.
func TestSilentFollowerHoldsNobodyUp(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		leader := c.Leader()
		c.Isolate((leader + 1) % 3)
		start := time.Now()
		store(t, c.Nodes[leader], "k", "1")
		if took := time.Since(start); took > time.Second {
			t.Errorf("the first write took %v", took)
		}
		start = time.Now()
		store(t, c.Nodes[leader], "k", "2")
		if took := time.Since(start); took > 20*time.Millisecond {
			t.Errorf("the second write took %v", took)
		}
		c.Heal()
		c.Settle()
		time.Sleep(time.Second)
		wantEverywhere(t, c, "k", "2")
	})
}

// An answer that is lost does not make a command take effect twice: TryLock would find the lock
// held, by itself.
func TestCommandsTakeEffectOnce(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		random := rand.New(rand.NewPCG(1, 2))
		ctx, stop := context.WithCancel(t.Context())
		var faults sync.WaitGroup
		faults.Go(func() {
			for ctx.Err() == nil {
				from := random.IntN(3)
				to := (from + 1 + random.IntN(2)) % 3
				c.Block(from, to) // one way: commands arrive, answers do not, or the other way round
				time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
				c.Heal()
				time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
			}
		})
		var clients sync.WaitGroup
		done := 0
		var mu sync.Mutex
		for i := range 6 {
			clients.Go(func() {
				s := c.Nodes[i%3].Storage()
				for round := range 60 {
					name := fmt.Sprintf("lock/%d/%d", i, round)
					ok, err := s.TryLock(t.Context(), name)
					if err != nil {
						continue // the session was lost in between: then there is no answer to judge
					}
					if !ok {
						t.Errorf("%s was held by an earlier copy of the same command", name)
					}
					mu.Lock()
					done++
					mu.Unlock()
					s.Unlock(t.Context(), name)
				}
			})
		}
		clients.Wait()
		stop()
		faults.Wait()
		if done < 300 {
			t.Errorf("only %d of 360 commands were answered", done)
		}
		c.Settle()
	})
}

// What was acknowledged survives whatever happens, and is read on every node.
func TestAcknowledgedWritesSurvive(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	var seeds []uint64
	for seed := range uint64(12) { // from 8 on with a witness
		seeds = append(seeds, seed)
	}
	for _, seed := range flotilla.Some(t, seeds, 11) {
		synctest.Test(t, func(t *testing.T) {
			timing := func(_ int, cfg *flotilla.Config) { cfg.Timing = flotilla.Timing(seed % 2) }
			witness := -1
			var c *clustertest.Cluster
			if seed < 8 {
				c = clustertest.New(t, 3, timing)
			} else {
				c = clustertest.New(t, 2, timing)
				witness = c.Add(func(i int, cfg *flotilla.Config) {
					timing(i, cfg)
					cfg.Witness = true
				})
			}
			c.Settle()
			steady(t, c, 3)
			random := rand.New(rand.NewPCG(seed, 3))
			acknowledged := make(map[string]string)
			for step := range 25 {
				switch random.IntN(5) {
				case 0:
					c.Isolate(random.IntN(3))
				case 1:
					c.Block(random.IntN(3), random.IntN(3))
				case 2, 3:
					c.Heal()
					i := random.IntN(3)
					c.Kill(i)
					write(t, c, random, acknowledged, step)
					c.Restart(i)
				case 4:
					c.Heal()
					c.Stop(c.Leader())
					for i := range c.Nodes {
						if !slices.Contains(c.Live(), i) {
							c.Restart(i)
						}
					}
				}
				write(t, c, random, acknowledged, step)
			}
			c.Heal()
			c.Settle()
			time.Sleep(time.Second) // a node that was cut off is told what it missed
			// A witness offers the leadership again after a pause, if it did so shortly before.
			for since := time.Now(); c.Leader() == witness; time.Sleep(100 * time.Millisecond) {
				if time.Since(since) > time.Minute {
					t.Fatalf("seed %d: the witness leads", seed)
				}
			}
			for key, value := range acknowledged {
				wantEverywhere(t, c, key, value)
			}
			if len(acknowledged) < 10 {
				t.Errorf("seed %d: only %d writes were acknowledged", seed, len(acknowledged))
			}
		})
	}
}

// write stores a new key on some live node, and notes it if that is acknowledged.
func write(t *testing.T, c *clustertest.Cluster, random *rand.Rand, acknowledged map[string]string, step int) {
	live := c.Live()
	i := live[random.IntN(len(live))]
	key := fmt.Sprintf("step/%d/%d", step, len(acknowledged))
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if c.Nodes[i].Storage().Store(ctx, key, []byte(key)) == nil {
		acknowledged[key] = key
	}
}

func TestIdleClusterWritesNothing(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		time.Sleep(10 * time.Second)
		before := c.Nodes[0].Status()
		minutes := flotilla.Cases(t, 10, 3)
		time.Sleep(time.Duration(minutes) * time.Minute)
		after := c.Nodes[0].Status()
		if after.Index != before.Index || after.Term != before.Term {
			t.Errorf("in %d idle minutes the log went from %d to %d, the term from %d to %d", minutes, before.Index, after.Index, before.Term, after.Term)
		}
		store(t, c.Nodes[0], "k", "1")
		if now := c.Nodes[0].Status(); now.Index == after.Index {
			t.Error("a write does not show: this test sees nothing")
		}
	})
}

// A node that is heard but hears nothing cannot follow what is written: it loses its lease, and
// writers wait for it no longer.
func TestDeafNodeHoldsNobodyUp(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		leader := c.Leader()
		deaf, other := (leader+1)%3, (leader+2)%3
		c.Block(leader, deaf)
		start := time.Now()
		store(t, c.Nodes[other], "k", "1")
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("the first write took %v", took)
		}
		if c.Nodes[deaf].Status().Ready {
			t.Error("a node that has missed a write says that it is ready")
		}
		start = time.Now()
		store(t, c.Nodes[other], "k", "2")
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("the second write took %v", took)
		}
		c.Unblock(leader, deaf)
		c.Settle()
		wantEverywhere(t, c, "k", "2")
	})
}

// A node that leads soon after its start has heard of nobody yet. It must not take the others for
// gone.
func TestLeaderThatHasJustStarted(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	step := time.Duration(flotilla.Cases(t, 10, 95)) * time.Millisecond
	for delay := 10 * time.Millisecond; delay < 200*time.Millisecond; delay += step {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 5, func(_ int, cfg *flotilla.Config) { cfg.Timing = flotilla.Fast })
			c.Settle()
			first := 0 // the smallest ID stands for election first
			for i, n := range c.Nodes {
				if n.Status().ID < c.Nodes[first].Status().ID {
					first = i
				}
			}
			if c.Leader() == first {
				c.Kill(first)
				c.Leader()
				c.Restart(first)
				c.Settle()
			}
			leader := c.Leader()
			other := 0
			for other == first || other == leader {
				other++
			}
			if err := c.Nodes[other].Storage().Lock(t.Context(), "l"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
			c.Stop(first)
			time.Sleep(1300 * time.Millisecond)
			c.Restart(first)
			time.Sleep(delay)
			c.Kill(leader)
			time.Sleep(2 * time.Second)
			if err := c.Nodes[other].Storage().Unlock(t.Context(), "l"); err != nil {
				t.Errorf("a node that nothing happened to lost its lock, delay %v: %v", delay, err)
			}
		})
	}
}

// A node that comes back meets a leader whose process it does not know yet. That one stays: only
// the process before it is dead.
func TestLeaderStaysWhenANodeComesBack(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		for round := range flotilla.Cases(t, 24, 6) {
			back := round % 3
			for i := range 3 {
				c.Kill(i)
			}
			c.Restart((back + 1) % 3)
			c.Restart((back + 2) % 3)
			c.Settle()
			leader, term := c.Leader(), c.Nodes[c.Leader()].Status().Term
			c.Restart(back)
			c.Settle()
			time.Sleep(2 * time.Second)
			now := c.Leader()
			if after := c.Nodes[now].Status().Term; now != leader || after != term {
				t.Errorf("round %d: node %d led in term %d; node %d came back, and node %d leads in term %d",
					round, leader, term, back, now, after)
			}
		}
	})
}
