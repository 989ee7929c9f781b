package lease

import (
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// The tests in this file are of single rules. Without its rule each of them fails: see TESTING.md.

// A grant counts for the session that it was given to, and for none if there is none.
func TestGrantOfAnotherSession(t *testing.T) {
	now := time.Now()
	h := &held{length: time.Second}
	for _, test := range []struct {
		own, granted uint64
		counts       bool
	}{{5, 4, false}, {5, 6, false}, {0, 0, false}, {0, 5, false}, {5, 5, true}} {
		h.begin(test.own)
		h.observe("a", test.granted, now)
		if got := !h.end([]string{"a"}).IsZero(); got != test.counts {
			t.Errorf("a grant to session %d counts for session %d: %v, want %v", test.granted, test.own, got, test.counts)
		}
	}
}

// More than half is a majority, and half is none.
func TestMajorities(t *testing.T) {
	for reported, enough := range map[string]bool{
		"a": false, "ab": false, "abc": true, "abcd": true, "": false, "xyz": false,
	} {
		set := make(map[string]bool)
		for _, v := range reported {
			set[string(v)] = true
		}
		if got := isMajority(set, []string{"a", "b", "c", "d"}); got != enough {
			t.Errorf("%q is a majority of four: %v, want %v", reported, got, enough)
		}
	}
}

// A lease needs the grants of more than half of the voters. It lasts as long as the newest grants
// that are enough.
func TestLeaseNeedsAMajority(t *testing.T) {
	now := time.Now()
	for _, test := range []struct{ voters, enough int }{{1, 1}, {2, 2}, {3, 2}, {4, 3}, {5, 3}} {
		h := &held{length: time.Second}
		h.begin(1)
		voters := []string{"a", "b", "c", "d", "e"}[:test.voters]
		for i, v := range voters {
			h.observe(v, 1, now.Add(time.Duration(i)*time.Second))
			var want time.Time
			if i+1 >= test.enough {
				want = now.Add(time.Duration(i+1-test.enough) * time.Second).Add(h.length)
			}
			if got := h.end(voters); !got.Equal(want) {
				t.Errorf("by %d grants of %d voters the lease ends %v too late", i+1, test.voters, got.Sub(want))
			}
		}
	}
}

// A hold-down outlasts what the kernel of the last holder shows, whatever the two clocks do within
// their bounds.
func TestHoldDownOutlastsSlowClocks(t *testing.T) {
	const slow, fast = 1 - 1./timing.Drift, 1 + 1./timing.Drift
	for _, kernel := range []time.Duration{0, 10 * time.Millisecond, 2500 * time.Millisecond, time.Hour} {
		for _, expired := range []bool{true, false} {
			seen := float64(kernel) / slow
			if !expired {
				seen += float64(testTiming().Held()) / slow
			}
			claim := state.Claim{Expired: expired, HoldDownTime: kernel}
			if d := float64(holdDownTime(testTiming(), &claim)) / fast; d < seen {
				t.Errorf("hold-down time %v, lease expired %v: it expires after %v, and something is seen for %v",
					kernel, expired, time.Duration(d), time.Duration(seen))
			}
		}
	}
}

// soloManager returns the Manager of a node that is in no cluster.
func soloManager() *Manager {
	life, store, log := lifecycle.New(), applied.New(), testlog.None()
	c := &testCluster{down: make(map[string]bool), sends: make(map[string]int)}
	n := &testNode{c: c, name: "own", state: store.State(), sent: make(map[string][]string)}
	return New(Config{
		Timing: testTiming(), Log: log, Life: life, Self: &self.Self{ID: "own"}, Store: store, Peers: peers.NewTable(store),
		Clocks: clocks.New(clocks.Config{Log: log}), Replica: n, Term: n.term, OnLost: func(uint64, time.Time, error) {},
	})
}

// A grant is taken if its request can have been sent, and if it can be decoded.
func TestGrantsAreDoubted(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		m := soloManager()
		s := state.New()
		s.Voters = []string{"a"}
		m.cfg.Store.Publish(s)
		m.Begin(7)
		time.Sleep(10 * time.Second)
		grant := func(session uint64, sent time.Duration) []byte {
			return encode(Grant{Session: session, Sent: uint64(sent), Clock: time.Now().UnixMilli()})
		}
		m.OnDatagram("a", grant(7, time.Hour))
		m.OnDatagram("a", grant(7, -1))
		m.OnDatagram("a", grant(8, 10*time.Second))
		m.OnDatagram("a", grant(7, 10*time.Second)[:2])
		if m.Valid() {
			t.Errorf("it has a lease for %v by a grant that cannot be", m.Left())
		}
		m.OnDatagram("a", grant(7, 10*time.Second))
		if !m.Valid() || !m.Usable(7) || m.Usable(6) {
			t.Error("it has no lease by a grant that can be, or another session has one")
		}
	})
}

// A lease ends by the clock, also when nothing looks at it: a process that stood still must not act
// before it has.
func TestLeaseOfAStoppedProcess(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		m := soloManager()
		s := state.New()
		s.Voters = []string{"a"}
		m.cfg.Store.Publish(s)
		m.Begin(7)
		time.Sleep(time.Second)
		m.granted("a", 7, time.Now())
		if !m.Valid() || !m.Usable(7) || !m.Without().Equal(time.Now()) {
			t.Fatal("there is no lease")
		}
		time.Sleep(m.cfg.Timing.Lease) // nothing of the node runs
		if m.Valid() || m.Usable(7) {
			t.Error("the lease is relied on after its end")
		}
		if !m.Without().Equal(time.Now()) {
			t.Error("the lease is said to be given up already")
		}
		end := m.Until()
		m.Lose(m.cfg.Life.Open.Err())
		time.Sleep(time.Second)
		if got := time.Since(m.Without()); got != time.Second {
			t.Errorf("it has been without a lease for %v, want a second", got)
		}
		if !m.UntilOf(7).Equal(end) || !m.UntilOf(6).IsZero() {
			t.Error("the end of the lease is forgotten, or is that of another session")
		}
	})
}

// The leader is replaced when a majority of the voters finds that its lease has expired. That is
// not before the lease is over.
func TestReplacingTheLeaderNeedsAMajority(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		voters := []string{"a", "b", "c"}
		c := newTestCluster(t, voters, voters)
		defer c.close()
		leader := SessionID{"a", c.newest().Number("a")}
		agree := func() bool { return c.node("b").follower.majorityAgrees(t.Context(), voters, leader) }
		if agree() {
			t.Error("a majority finds the lease of the leader over, and all of them renew it")
		}
		c.cut("a", "b")
		c.cut("a", "c")
		for start := time.Now(); !agree(); time.Sleep(time.Millisecond) {
			if time.Since(start) > time.Minute {
				t.Fatal("no majority ever finds the lease of a leader over that is cut off")
			}
		}
		c.mustBeOver("a")
	})
}

// A voter that has not caught up and finds a suspicion in its state looks at that only now and
// then.
func TestReportIsNoHotLoop(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		m := soloManager()
		s := state.New()
		for i, c := range []state.Command{
			{Node: "a", Change: state.OpenSession{Incarnation: "a1"}},
			{Change: state.Suspect{Node: "a", Number: 1}},
		} {
			s, _ = s.Apply(uint64(i)+1, &c, nil)
		}
		m.cfg.Store.Publish(s)
		time.Sleep(time.Second)
		now := time.Now()
		if _, next := m.voter.report(now); next.Sub(now) < 10*time.Millisecond {
			t.Errorf("it wants to look again in %v, and will as long as it has not caught up", next.Sub(now))
		}
	})
}

// AwaitReady says why a node does not get ready.
func TestAwaitReady(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, []string{"a"}, []string{"a"})
		defer c.close()
		m := c.node("a").Manager
		ready := make(chan error, 1)
		go func() { ready <- m.AwaitReady(t.Context()) }()
		time.Sleep(time.Second)
		if len(ready) > 0 || m.IsReady() || !m.FirstReady().Equal(m.own.started) {
			t.Error("it is ready before it is current")
		}
		m.MarkCurrent()
		m.Renewed.Notify()
		if err := <-ready; err != nil || !m.IsReady() {
			t.Errorf("it does not get ready: %v", err)
		}
		if !m.FirstReady().Equal(time.Now()) {
			t.Errorf("it was ready %v ago for the first time", time.Since(m.FirstReady()))
		}
		m.cfg.Life.End(errNoDisk{})
		if err := m.AwaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), "no disk") {
			t.Errorf("the node has ended: %v", err)
		}
	})
}

type errNoDisk struct{}

func (errNoDisk) Error() string { return "no disk" }
