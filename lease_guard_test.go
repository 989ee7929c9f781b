package flotilla

import (
	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/lease"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/testlog"

	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// The tests in this file are of single guards of the lease. Without its guard each of them fails:
// see TESTING.md.

// A promise counts for the session that it was given to, and for none if there is none.
func TestPromiseOfAnotherSession(t *testing.T) {
	now := time.Now()
	l := &lease.Held{Length: time.Second}
	for _, test := range []struct {
		own, promised uint64
		counts        bool
	}{{5, 4, false}, {5, 6, false}, {0, 0, false}, {0, 5, false}, {5, 5, true}} {
		l.Begin(test.own)
		l.Grant("a", test.promised, now)
		if got := !l.End([]string{"a"}).IsZero(); got != test.counts {
			t.Errorf("a promise to session %d counts for session %d: %v, want %v", test.promised, test.own, got, test.counts)
		}
	}
}

// More than half is a majority, and half is none.
func TestMajorities(t *testing.T) {
	for spoke, enough := range map[string]bool{"a": false, "ab": false, "abc": true, "abcd": true, "": false, "xyz": false} {
		said := make(map[string]bool)
		for _, v := range spoke {
			said[string(v)] = true
		}
		if got := lease.IsMajority(said, []string{"a", "b", "c", "d"}); got != enough {
			t.Errorf("%q is a majority of four: %v, want %v", spoke, got, enough)
		}
	}
}

// A lease that half of the voters have promised is none.
func TestLeaseNeedsAMajority(t *testing.T) {
	now := time.Now()
	for _, test := range []struct{ voters, promises, enough int }{{1, 1, 1}, {2, 2, 2}, {3, 3, 2}, {4, 4, 3}, {5, 5, 3}} {
		l := &lease.Held{Length: time.Second}
		l.Begin(1)
		voters := []string{"a", "b", "c", "d", "e"}[:test.voters]
		for i, v := range voters {
			l.Grant(v, 1, now.Add(time.Duration(i)*time.Second))
			var want time.Time
			if i+1 >= test.enough { // it lasts as long as the newest promises that are enough
				want = now.Add(time.Duration(i+1-test.enough) * time.Second).Add(l.Length)
			}
			if got := l.End(voters); !got.Equal(want) {
				t.Errorf("by %d promises of %d voters the lease ends %v too late", i+1, test.voters, got.Sub(want))
			}
		}
	}
}

// A voter reports that nothing binds it when that is so, and not before it has caught up: it may
// have to apply a suspicion first.
func TestReportsAreTrue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		a := m.open("a")
		k := keeperOf(m.s)
		k.Self.ID = "" // as is the leader's, since there is none: it reports to itself
		if !k.Ask("a", a) {
			t.Fatal("it promises nothing")
		}
		m.do(state.Command{Change: state.Suspect{Node: "a", Number: a}})
		k.Store.Publish(m.s)
		who := lease.Suspicion{SessionID: lease.SessionID{Node: "a", Number: a}, Index: m.s.Index}
		report := func() bool {
			k.Report(time.Now())
			k.Mu.Lock()
			defer k.Mu.Unlock()
			return k.Reports[who][""]
		}
		if report() {
			t.Error("it reports while its promise binds it")
		}
		time.Sleep(k.Timing.Grant())
		k.Caught = false
		if report() {
			t.Error("it reports before it has caught up")
		}
		k.Caught = true
		if !report() {
			t.Error("it does not report when nothing binds it")
		}
	})
}

// loneKeeper returns the lease manager of a node that is in no cluster.
func loneKeeper() *lease.Manager {
	life, store, self, log := lifecycle.New(), applied.New(), &self.Self{ID: "own"}, testlog.None()
	book := peers.NewTable(store)
	return lease.New(lease.Config{
		Timing: LAN.lengths(), Log: log, Life: life, Self: self, Store: store, Book: book, Clocks: clocks.New(clocks.Config{Log: log}),
		Replica: replica.New(replica.Config{Timing: LAN.lengths(), Log: log, Life: life, Self: self, Store: store, Book: book}),
		OnLost:  func(uint64, time.Time, error) {},
	})
}

// keeperOf returns the lease manager of a node that has a state and nothing else, and has caught
// up.
func keeperOf(s *state.State) *lease.Manager {
	k := loneKeeper()
	k.Store.Publish(s)
	k.CatchUp()
	return k
}

// A voter that has applied a suspicion gives that session nothing more, until it is cleared.
func TestSuspectIsPromisedNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		a := m.open("a")
		m.do(state.Command{Change: state.Suspect{Node: "a", Number: a}})
		suspicion := m.s.Index
		k := keeperOf(m.s)
		if k.Ask("a", a) || !k.Given.Until[lease.SessionID{Node: "a", Number: a}].IsZero() {
			t.Error("a suspect is promised a lease")
		}
		m.do(state.Command{Change: state.ClearSuspicion{Node: "a", Number: a, Suspicion: suspicion}})
		k.Store.Publish(m.s)
		if k.Ask("a", a+1) || !k.Ask("a", a) || k.Given.Until[lease.SessionID{Node: "a", Number: a}].IsZero() {
			t.Error("one that was cleared is promised none, or another session is")
		}
	})
}

// A voter whose disk fails promises nothing: what it promises must outlast its process.
func TestVoterWithoutDiskPromisesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		a := m.open("a")
		k := keeperOf(m.s)
		k.Life.Setback.Store(&lifecycle.Setback{Err: syscall.EIO})
		if k.Ask("a", a) || !k.Given.Until[lease.SessionID{Node: "a", Number: a}].IsZero() {
			t.Error("it promises a lease")
		}
		k.Life.Setback.Store(nil)
		if !k.Ask("a", a) {
			t.Error("it promises none when its disk is well again")
		}
	})
}

// A voter that has not applied a session's opening says nothing of it. One that has, and knows it
// no more, says that it has ended.
func TestVoterThatLagsSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		secret, ids := NewSecret(), []string{self.NewID(), self.NewID()}
		heard := make(chan byte, 10)
		var ports []*wire.Port
		for i, name := range []string{"voter", "asker"} {
			ln, err := net.Host(name).Listen("tcp", ":7373")
			if err != nil {
				t.Fatal(err)
			}
			port, err := wire.Open(wire.Config{
				ID: ids[i], Secrets: []seal.Secret{secret.raw}, Listener: ln, Dial: net.Host(name).Dial,
				Resolve: func(string) (string, bool) { return "asker:7373", true },
				Noted:   func(_ string, note []byte) { heard <- note[0] },
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { port.Close() })
			ports = append(ports, port)
		}
		m := newMachine(t)
		k := keeperOf(m.s)
		k.Replica.Port = ports[0]
		k.Answer(lease.Request{Node: ids[1], Session: 3, Urgent: true})
		time.Sleep(10 * time.Second)
		if len(heard) > 0 {
			t.Errorf("a voter that lags says %d", <-heard)
		}
		for range 3 {
			m.open("another")
		}
		k.Store.Publish(m.s)
		k.Answer(lease.Request{Node: ids[1], Session: 3, Urgent: true})
		time.Sleep(10 * time.Second)
		if len(heard) != 1 || <-heard != lease.DatagramEnded {
			t.Error("a voter that knows the session no more does not say so")
		}
	})
}

// What others say of the lease is believed if it can be true.
func TestNotesAreDoubted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := state.New()
		s.Voters = []string{"a"}
		k := keeperOf(s)
		k.Begin(7)
		time.Sleep(10 * time.Second)
		promise := func(session uint64, sent time.Duration) []byte {
			var e codec.Encoder
			e.Byte(lease.DatagramGrant)
			e.Uint(session)
			e.Uint(uint64(sent))
			e.Int(time.Now().UnixMilli())
			return e.B
		}
		k.OnDatagram("a", promise(7, time.Hour))
		k.OnDatagram("a", promise(8, time.Since(k.Started)))
		k.OnDatagram("a", promise(7, time.Since(k.Started))[:2])
		if k.Valid() {
			t.Errorf("it has a lease for %v by a promise that cannot be", k.Left())
		}
		k.OnDatagram("a", promise(7, time.Since(k.Started)))
		if !k.Valid() {
			t.Error("it has no lease by a promise that can be")
		}
	})
}

// A lease ends by the clock, also when nobody has looked at it: a process that stood still must not
// act before it has.
func TestLeaseOfAStoppedProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := state.New()
		s.Voters = []string{"a"}
		k := keeperOf(s)
		k.Begin(7)
		time.Sleep(time.Second)
		k.Granted("a", 7, time.Now())
		if !k.Valid() || !k.Usable(7) {
			t.Fatal("there is no lease")
		}
		time.Sleep(k.Timing.Lease) // nothing of the node runs
		if k.Valid() || k.Usable(7) {
			t.Error("the lease is relied on after its end")
		}
	})
}

// A session that has fallen silent ends when its node's lease is over, and no sooner.
func TestSessionEndsAfterItsLease(t *testing.T) {
	for _, voters := range []int{3, 4, 5} {
		t.Run(fmt.Sprint(voters, " voters"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := simnet.New()
				nodes := fleet(t, net, []string{"a", "b", "c", "d", "e"}[:voters], nil)
				time.Sleep(5 * time.Second)
				leader, others := leaderOf(t, nodes)
				silent := others[0]
				net.Isolate(silent.self.Name)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if _, err := leader.store.Wait(ctx, func(s *state.State) bool { return s.Session(silent.self.ID) == nil }); err != nil {
					t.Fatalf("the session never ends: %v", err)
				}
				if left := time.Until(silent.keeper.Until()); left > 0 {
					t.Errorf("the session ends %v before the lease of its node", left)
				}
			})
		})
	}
}

// The leader is replaced when a majority of the voters finds its lease over. One that is cut off
// itself finds that alone.
func TestLapsedNeedsAMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		time.Sleep(5 * time.Second)
		leader, others := leaderOf(t, nodes)
		s := leader.store.State()
		id := lease.SessionID{Node: leader.self.ID, Number: s.Number(leader.self.ID)}
		if others[0].keeper.MajorityAgrees(t.Context(), s.Voters, id) {
			t.Error("a majority is said to find the lease of the leader over, and all of them renew it")
		}
		net.Isolate(leader.self.Name)
		for start := time.Now(); !others[0].keeper.MajorityAgrees(t.Context(), s.Voters, id); time.Sleep(time.Millisecond) {
			if time.Since(start) > time.Minute {
				t.Fatal("no majority ever finds the lease of a leader over that is cut off")
			}
		}
		if left := time.Until(leader.keeper.Until()); left > 0 {
			t.Errorf("a majority finds the lease over %v before its end", left)
		}
	})
}
