package flotilla

import (
	"cmp"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// The tests in this file show with whole nodes what internal/lease shows of its own.

// A voter may be asked for a grant before it has applied the opening of the session: the leader and
// the other voter are enough to commit that. If the leader is cut off right then, that voter must
// be able to say that the leader's lease has expired. Otherwise raft's own timeouts decide, more
// than a second later.
func TestAskedBeforeTheSessionIsApplied(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		leader, others := leaderOf(t, nodes)
		slow, next := others[0], others[1]
		time.Sleep(5 * time.Second)
		synctest.Wait()
		gate, onApplied := make(chan struct{}), slow.fsm.onApplied
		slow.fsm.onApplied = func(fx *state.Effects) { // applies one entry, and the next one when it may
			onApplied(fx)
			<-gate
		}
		old := leader.self.Session(leader.store.State())
		leader.leases.Lose(fmt.Errorf("%w: test", ErrLost)) // has another session opened
		mustStore(t, next, "k", "1")
		for number := old; number == old || !leader.leases.Usable(number); number = leader.self.Session(leader.store.State()) {
			time.Sleep(time.Millisecond)
		}
		synctest.Wait() // the leader has asked
		if number := slow.store.State().Number(leader.self.ID); number != old {
			t.Fatalf("the slow voter knows session %d already", number)
		}
		close(gate)
		synctest.Wait()
		if number := slow.store.State().Number(leader.self.ID); number == old {
			t.Fatal("the slow voter has not applied the session")
		}
		net.Isolate(leader.self.Name)
		start := time.Now()
		mustStore(t, next, "k", "2")
		if took := time.Since(start); took > 800*time.Millisecond {
			t.Errorf("the first write after the leader was cut off took %v", took)
		}
		net.Heal()
	})
}

// A node whose disk hangs asks for no lease, not even from itself: writers would have to wait for
// it.
func TestNoLeaseOnAHangingDisk(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ds := newDisks()
		n := fleet(t, simnet.New(), []string{"a"}, ds.attach)[0]
		goOn := ds.stop(n)
		defer goOn()
		go n.storage.Store(t.Context(), "k", nil)
		time.Sleep(replica.Hanging / 2)
		if !n.leases.Valid() {
			t.Error("it has no lease, and its disk is only slow")
		}
		time.Sleep(replica.Hanging + 2*n.timing.Lease)
		if n.leases.Valid() {
			t.Errorf("it has a lease for %v while its disk hangs", n.leases.Left())
		}
	})
}

// A role whose holder is cut off is granted again after lease and hold-down, and no sooner.
func TestHoldDownTime(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		_, others := leaderOf(t, nodes)
		holder := others[0]
		const holdDown = 5 * time.Second
		<-holdPublicUntil(t.Context(), holder, Role{Name: "r"}, hold.Public{HoldDown: holdDown})
		next := holdPublicUntil(t.Context(), others[1], Role{Name: "r"}, hold.Public{HoldDown: holdDown})
		net.Isolate(holder.self.Name)
		over := holder.leases.Until() // the last one: nobody renews it any more
		for granted := false; !granted; {
			select {
			case <-next:
				granted = true
			case <-time.After(10 * time.Millisecond):
				if until := holder.leases.Until(); until.After(over) {
					over = until
				}
			}
		}
		if early := time.Until(over.Add(holdDown)); early > 0 {
			t.Errorf("the role is granted again %v before lease and hold-down are over", early)
		}
	})
}

// After a time without a leader, the new one leaves the old sessions alone for a moment. A node
// that lives opens its next session in that time, and keeps what it has.
func TestNewLeaderWaitsForThoseWhoLive(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		time.Sleep(5 * time.Second)
		alive, gone := nodes[0], nodes[1:]
		for _, n := range gone {
			net.Host(n.self.Name).Kill()
			n.Close()
		}
		time.Sleep(10 * time.Second)
		net.Isolate(alive.self.Name) // or it would open the next session at once
		var again []*Node
		for _, n := range gone {
			net.Host(n.self.Name).Revive()
			again = append(again, reviewReopen(t, n))
		}
		var l *replica.Leadership
		for l == nil {
			time.Sleep(time.Millisecond)
			for _, n := range again {
				l = cmp.Or(l, n.replica.Leading.Load())
			}
		}
		s, err := again[0].store.Wait(t.Context(), func(s *state.State) bool {
			old := s.Session(alive.self.ID)
			return old == nil || old.Suspect != 0
		})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(l.Since); took < again[0].timing.Retry() {
			t.Errorf("%v after the leader began, the session is %+v", took, s.Session(alive.self.ID))
		}
	})
}

// A session that has fallen silent ends when its node's lease is over, and no sooner.
func TestSessionEndsAfterItsLease(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
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
				if left := time.Until(silent.leases.Until()); left > 0 {
					t.Errorf("the session ends %v before the lease of its node", left)
				}
			})
		})
	}
}
