package flotilla_test

import (
	"context"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/vip"
)

// For how long nobody answers for an address after each event, with production timings, and never
// two at once.
func TestAddressOutages(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	lan, fast, turbo := flotilla.LAN, flotilla.Fast, flotilla.Turbo
	for _, test := range []struct {
		name  string
		leads bool // the owner does
		event func(f *addressFleet, owner int)
		most  map[flotilla.Timing]time.Duration
	}{
		{"killed", false, func(f *addressFleet, i int) { f.kill(i, true) }, map[flotilla.Timing]time.Duration{lan: 30 * time.Millisecond, fast: 30 * time.Millisecond, turbo: 30 * time.Millisecond}},
		{"killed, and leads", true, func(f *addressFleet, i int) { f.kill(i, true) }, map[flotilla.Timing]time.Duration{lan: 250 * time.Millisecond, fast: 200 * time.Millisecond, turbo: 150 * time.Millisecond}},
		{"killed without a guard", false, func(f *addressFleet, i int) { f.kill(i, false) }, map[flotilla.Timing]time.Duration{lan: 700 * time.Millisecond, fast: 250 * time.Millisecond, turbo: 120 * time.Millisecond}},
		{"by plan", false, func(f *addressFleet, i int) { f.end(i) }, map[flotilla.Timing]time.Duration{lan: 10 * time.Millisecond, fast: 10 * time.Millisecond, turbo: 10 * time.Millisecond}},
		{"cut off", false, func(f *addressFleet, i int) { f.c.Isolate(i) }, map[flotilla.Timing]time.Duration{lan: 700 * time.Millisecond, fast: 250 * time.Millisecond, turbo: 120 * time.Millisecond}},
		{"cut off, and leads", true, func(f *addressFleet, i int) { f.c.Isolate(i) }, map[flotilla.Timing]time.Duration{lan: 900 * time.Millisecond, fast: 300 * time.Millisecond, turbo: 120 * time.Millisecond}},
		{"stands still", false, func(f *addressFleet, i int) {
			f.machine(i).Freeze()
			f.c.Isolate(i)
		}, map[flotilla.Timing]time.Duration{lan: 700 * time.Millisecond, fast: 250 * time.Millisecond, turbo: 120 * time.Millisecond}},
		{"killed and back at once", false, func(f *addressFleet, i int) {
			f.kill(i, false)
			f.restart(i)
		}, map[flotilla.Timing]time.Duration{lan: 700 * time.Millisecond, fast: 300 * time.Millisecond, turbo: 120 * time.Millisecond}},
	} {
		for timing, most := range test.most {
			if timing != lan && !flotilla.Long() {
				continue
			}
			t.Run(test.name+" "+timing.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newAddressFleet(t, 1, 3, 1, nil, func(_ int, c *flotilla.Config) { c.Timing = timing })
					leader := f.c.Leader()
					first := (leader + 1) % 3
					if test.leads {
						first = leader
					}
					f.run(first)
					f.settled(time.Minute)
					for i := range 3 {
						if i != first {
							f.run(i)
						}
					}
					time.Sleep(10 * time.Second) // so that nothing is new any more
					if f.owner(0) != first || f.c.Leader() != leader {
						t.Fatalf("node %d owns the address, want %d", f.owner(0), first)
					}
					test.event(f, first)
					f.await("another owner", time.Minute, func() bool {
						return f.owner(0) >= 0 && f.owner(0) != first || strings.Contains(test.name, "back") && f.owner(0) >= 0
					})
					time.Sleep(10 * time.Millisecond)
					gaps := f.link.Gaps(f.addrs[0].Addr())
					f.alone()
					var longest time.Duration
					for _, g := range gaps {
						longest = max(longest, g)
					}
					t.Logf("nobody answered for %v", longest)
					if longest > most {
						t.Errorf("nobody answered for %v, want %v at the most", longest, most)
					}
					f.c.Heal()
					f.machine(first).Thaw()
				})
			})
		}
	}
}

// Three addresses on three nodes are one on each; when a node is gone the others have them all, and
// when it is back it gets one again.
func TestAddressesSpread(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		f := newAddressFleet(t, 1, 3, 3, nil, nil)
		f.start()
		spread := func() bool {
			on := make(map[int]bool)
			for k := range f.addrs {
				on[f.owner(k)] = true
			}
			return len(on) == 3 && !on[-1]
		}
		f.await("one address on each node", time.Minute, spread)
		f.kill(2, true)
		f.settled(time.Second)
		time.Sleep(5 * time.Second)
		f.restart(2)
		f.await("one address on each node again", time.Minute, spread)
		f.alone()
	})
}

// A node with a higher priority that is back gets its address by plan, after the delay.
func TestAddressFailsBack(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		const delay = 3 * time.Second
		f := newAddressFleet(t, 1, 3, 1, func(i, _ int, cfg *vip.Config) {
			if cfg.PreemptDelay = delay; i == 0 {
				cfg.Priority = 1
			}
		}, nil)
		f.start()
		f.await("n0 has it", time.Minute, func() bool { return f.owner(0) == 0 })
		f.kill(0, true)
		f.settled(time.Second)
		f.restart(0)
		f.c.Settle()
		before := len(f.link.Gaps(f.addrs[0].Addr()))
		if took := f.await("n0 has it again", time.Minute, func() bool { return f.owner(0) == 0 }); took < delay {
			t.Errorf("it failed back after %v, the delay is %v", took, delay)
		}
		if gaps := f.link.Gaps(f.addrs[0].Addr())[before:]; len(gaps) > 1 || len(gaps) == 1 && gaps[0] > 10*time.Millisecond {
			t.Errorf("nobody answered for %v", gaps)
		}
		f.alone()
	})
}

// A program that is not ready hands its address over, and does not get it back before it is.
func TestAddressFollowsReady(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var sick atomic.Bool
		var kinds []vip.Kind
		f := newAddressFleet(t, 1, 3, 1, func(i, _ int, cfg *vip.Config) {
			if i == 0 {
				cfg.Priority = 1
				cfg.Ready = func() bool { return !sick.Load() }
				cfg.Notify = func(e vip.Event) { kinds = append(kinds, e.Kind) }
			}
		}, nil)
		f.start()
		f.await("n0 has it", time.Minute, func() bool { return f.owner(0) == 0 })
		sick.Store(true)
		f.await("another has it", 200*time.Millisecond, func() bool { return f.owner(0) > 0 })
		time.Sleep(10 * time.Second)
		if f.owner(0) == 0 {
			t.Error("a node that is not ready has the address")
		}
		sick.Store(false)
		f.await("n0 has it again", time.Second, func() bool { return f.owner(0) == 0 })
		f.alone()
		f.end(0)
		want := []vip.Kind{vip.Bound, vip.Moved, vip.Unusable, vip.Competing, vip.Bound, vip.Moved}
		if len(kinds) != len(want) {
			t.Fatalf("events %v, want %v", kinds, want)
		}
		for i := range want {
			if kinds[i] != want[i] {
				t.Fatalf("events %v, want %v", kinds, want)
			}
		}
	})
}

// Without a majority the address is released, or kept, as the configuration says.
func TestAddressWithoutQuorum(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, keep := range []bool{false, true} {
		t.Run(map[bool]string{false: "release", true: "keep"}[keep], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newAddressFleet(t, 1, 3, 1, func(_, _ int, cfg *vip.Config) {
					if keep {
						cfg.Quorum = vip.Keep
					}
				}, nil)
				f.start()
				f.settled(time.Minute)
				owner := f.owner(0)
				for i := range 3 {
					if i != owner {
						f.kill(i, true)
					}
				}
				time.Sleep(10 * time.Second)
				if now := f.owner(0); keep && now != owner || !keep && now != -1 {
					t.Errorf("without a majority the address is at %d, it was at %d", now, owner)
				}
				for _, i := range f.dead() {
					f.restart(i)
				}
				f.c.Settle()
				f.settled(10 * time.Second)
				if keep && f.owner(0) != owner {
					t.Errorf("the address that was kept has moved to %d", f.owner(0))
				}
				f.alone()
				if gaps := f.link.Gaps(f.addrs[0].Addr()); keep && len(gaps) > 0 {
					t.Errorf("the address that was kept was gone for %v", gaps)
				}
			})
		})
	}
}

// In a partition the majority gives a kept address to another node, so two answer, each on its
// side; the one without the role lets go when the network is whole.
func TestKeptAddressInAPartition(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		f := newAddressFleet(t, 1, 3, 1, func(_, _ int, cfg *vip.Config) { cfg.Quorum = vip.Keep }, nil)
		f.start()
		f.settled(time.Minute)
		f.c.Isolate(f.owner(0))
		f.await("both sides have it", 2*time.Second, func() bool { return len(f.link.Owners(f.addrs[0].Addr())) == 2 })
		f.c.Heal()
		f.await("one has it", 10*time.Second, func() bool { return f.owner(0) >= 0 })
	})
}

// Move takes an address to another node, where it stays although the others are better.
func TestAddressMovesByHand(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		f := newAddressFleet(t, 1, 3, 1, func(i, _ int, cfg *vip.Config) { cfg.Priority = 10 - i }, nil)
		f.start()
		f.await("n0 has it", time.Minute, func() bool { return f.owner(0) == 0 })
		role := "vip/" + f.addrs[0].Addr().String()
		if err := f.c.Nodes[1].Move(t.Context(), role, "n2"); err != nil {
			t.Fatal(err)
		}
		f.await("n2 has it", 10*time.Millisecond, func() bool { return f.owner(0) == 2 })
		time.Sleep(10 * time.Second)
		if f.owner(0) != 2 {
			t.Errorf("it has gone to n%d", f.owner(0))
		}
		for want, role := range map[string]string{"no member has the ID or name n7": role, "lost": "none"} {
			node := "n7"
			if role == "none" {
				node = "n1"
			}
			if err := f.c.Nodes[0].Move(t.Context(), role, node); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("moving %s to %s: %v, want %q", role, node, err, want)
			}
		}
		f.alone()
	})
}

// Two hundred addresses of one group, held by three nodes, are spread, move when a node dies, and
// cost no entry of the log at rest.
func TestManyAddresses(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		const n = 100
		f := newAddressFleet(t, 1, 3, n, nil, nil)
		f.start()
		f.settled(time.Minute)
		time.Sleep(20 * time.Second)
		load := make(map[int]int)
		for k := range f.addrs {
			load[f.owner(k)]++
		}
		for i := range 3 {
			if load[i] < n/3 || load[i] > n/3+1 {
				t.Errorf("node %d has %d addresses of %d", i, load[i], n)
			}
		}
		index := f.c.Nodes[0].Status().Index
		time.Sleep(time.Minute)
		if now := f.c.Nodes[0].Status().Index; now != index {
			t.Errorf("at rest there were %d entries in a minute", now-index)
		}
		owners := make(map[netip.Prefix]int)
		for k, a := range f.addrs {
			owners[a] = f.owner(k)
		}
		f.c.Isolate(0)
		f.await("all are back", time.Second, func() bool {
			for k := range f.addrs {
				if i := f.owner(k); i < 0 || i == 0 {
					return false
				}
			}
			return true
		})
		f.c.Heal()
		f.alone()
	})
}

// Serve keeps an address until it has moved: clients are served until then.
func TestDrainMovesAddressesFirst(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		f := newAddressFleet(t, 1, 3, 1, nil, nil)
		f.start()
		f.settled(time.Minute)
		i := f.owner(0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := f.c.Nodes[i].Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
		if now := f.owner(0); now == i || now < 0 {
			t.Errorf("after Shutdown of node %d the address is at %d", i, now)
		}
		f.alone()
	})
}
