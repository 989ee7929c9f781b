package flotilla

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// How many elections there are when the leader falls silent for a moment.
func TestSilentLeader(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, latency := range []time.Duration{0, 5 * time.Millisecond} {
		for _, away := range Some(t, []time.Duration{400, 500, 600, 650, 700, 900}, 2) {
			t.Run(fmt.Sprintf("%v away %d ms", latency, away), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					net := simnet.New()
					net.SetLatency(latency)
					nodes := trio(t, net, nil)
					time.Sleep(5 * time.Second)
					leader, _ := leaderOf(t, nodes)
					term := leader.replica.Term()
					net.Isolate(leader.self.Name)
					time.Sleep(away * time.Millisecond)
					net.Heal()
					start := time.Now()
					time.Sleep(100 * time.Millisecond)
					for _, n := range nodes {
						mustBeReady(t, n)
					}
					took := time.Since(start)
					time.Sleep(5 * time.Second)
					d := leader.replica.Term() - term
					t.Logf("%d terms; all ready %v after the end of it", d, took)
					// The first candidate's log may be behind. Then the next one stands, before raft's own
					// timeouts, which take up to 2.4 s.
					if d > 2 || took > time.Second {
						t.Errorf("%d elections, ready after %v", d, took)
					}
				})
			})
		}
	}
}

// A node that asks a leader for a session, and does not hear from it any more, asks the next leader
// as soon as there is one.
func TestLeaderFallsSilentWhileItIsAsked(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		net.SetLatency(5 * time.Millisecond)
		nodes := trio(t, net, nil)
		time.Sleep(5 * time.Second)
		leader, others := leaderOf(t, nodes)
		net.Isolate(leader.self.Name)
		others[0].leases.Lose(fmt.Errorf("%w: test", ErrLost))
		start := time.Now()
		for others[0].replica.Leader() == "" || others[0].replica.Leader() == leader.self.ID {
			time.Sleep(10 * time.Millisecond)
		}
		elected := time.Since(start)
		mustBeReady(t, others[0])
		t.Logf("another leader after %v, ready after %v", elected, time.Since(start))
		if took := time.Since(start) - elected; took > time.Second {
			t.Errorf("ready %v after the election", took)
		}
	})
}

// A candidate that lacks entries loses. The next voter stands then, although the old leader's late
// requests make its lease look valid again. It does not wait for raft's own timeouts.
func TestSecondCandidateStands(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		time.Sleep(5 * time.Second)
		leader, others := leaderOf(t, nodes)
		slices.SortFunc(others, func(a, b *Node) int { return strings.Compare(a.self.ID, b.self.ID) })
		first, second := others[0], others[1]
		net.Block(leader.self.Name, first.self.Name)
		if err := leader.replica.Raft.Load().Barrier(time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		if first.replica.LastIndex() >= second.replica.LastIndex() {
			t.Fatal("the first candidate lacks nothing: this shows nothing")
		}
		net.Isolate(leader.self.Name)
		start := time.Now()
		first.replica.Stand(t.Context())
		second.replica.StandFor(t.Context(), leader.self.ID, func() bool { return false })
		if took := time.Since(start); second.replica.Leader() != second.self.ID || took > time.Second {
			t.Errorf("after %v %q leads, want %s", took, second.replica.Leader(), second.self.ID)
		}
	})
}

// A death notice has a dead leader replaced at once, although its connections stay open: the kernel
// takes its time to close them. The dead session ends together with the new term's first entry.
func TestDeathNoticeOfALeader(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		time.Sleep(5 * time.Second)
		leader, others := leaderOf(t, nodes)
		number := leader.self.Session(leader.store.State())
		const latency = 5 * time.Millisecond
		net.SetLatency(latency)
		net.Isolate(leader.self.Name)
		start := time.Now()
		var notices sync.WaitGroup
		for _, n := range others {
			notices.Go(func() {
				if err := n.members.EndDead(t.Context(), leader.self.ID, number); err != nil {
					t.Errorf("the death notice at %s: %v", n.self.Name, err)
				}
			})
		}
		for others[0].replica.Leading.Load() == nil && others[1].replica.Leading.Load() == nil {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(start); took > 20*latency {
			t.Errorf("another node leads after %v", took)
		}
		next, _ := leaderOf(t, others)
		if next.store.State().Number(leader.self.ID) == number {
			t.Error("the node leads, and the session of the dead leader is not over")
		}
		notices.Wait()
	})
}

// A death notice of an earlier session of the leader changes nothing.
func TestDeathNoticeOfAnEarlierSession(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		time.Sleep(5 * time.Second)
		leader, others := leaderOf(t, nodes)
		number, term := leader.self.Session(leader.store.State()), leader.replica.Term()
		leader.leases.Lose(fmt.Errorf("%w: test", ErrLost))
		time.Sleep(5 * time.Second)
		mustBeReady(t, leader)
		later := leader.self.Session(leader.store.State())
		if later == number {
			t.Fatal("the leader has the same session: this shows nothing")
		}
		for _, n := range others {
			if err := n.members.EndDead(t.Context(), leader.self.ID, number); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Second)
		if now := leader.self.Session(leader.store.State()); now != later || leader.replica.Term() != term {
			t.Errorf("session %d in term %d, want %d in %d", now, leader.replica.Term(), later, term)
		}
	})
}

// A node has one candidacy at a time. A second request to stand could reach raft when the first has
// won.
func TestOneCandidacyAtATime(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		time.Sleep(5 * time.Second)
		leader, others := leaderOf(t, nodes)
		net.Isolate(leader.self.Name)
		var first, second bool
		others[0].replica.StandFor(t.Context(), leader.self.ID, func() bool {
			first = true
			others[0].replica.StandFor(t.Context(), leader.self.ID, func() bool { second = true; return false })
			return false
		})
		if !first || second {
			t.Errorf("the first candidacy is looked into: %v, the second: %v", first, second)
		}
	})
}
