package flotilla

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// The tests in this file are of single guards of who votes and leads. Without its guard each of
// them fails: see TESTING.md.

// A leader hands over to no witness, even if nobody else has all entries.
func TestWitnessIsNotOfferedTheLeadership(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := fleet(t, net, []string{"a", "b"}, nil)
		leader, others := leaderOf(t, nodes)
		mustBeReady(t, join(t, net, leader, "w", func(c *Config) { c.Witness = true }))
		time.Sleep(15 * time.Second)
		if n := voting(t, nodes); n != 3 {
			t.Fatalf("%d vote", n)
		}
		net.Isolate(others[0].self.Name)
		time.Sleep(3 * leader.timing.Lease)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := leader.replica.Transfer(ctx, ""); err == nil || !strings.Contains(err.Error(), "no other voter is there and up to date") {
			t.Errorf("the leadership is handed to a witness: %v", err)
		}
	})
}

// A living voter loses its vote only for a reason that is still there when the change of before has
// settled.
func TestLivingVotersAreTakenForAReason(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := fleet(t, net, []string{"a", "b", "c", "d"}, nil)
		time.Sleep(5 * time.Second)
		leader, others := leaderOf(t, nodes)
		l := leader.replica.Leading.Load()
		carryOut := func(what string, kind membership.ChangeKind, n *Node, want int) {
			t.Helper()
			if err := leader.members.CarryOut(t.Context(), l, membership.Change{Kind: kind, ID: n.self.ID, Why: what}); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if got := voting(t, nodes); got != want {
				t.Errorf("%s: %d vote, want %d", what, got, want)
			}
		}
		carryOut("nobody has demoted it", membership.Dismiss, others[0], 4)
		carryOut("it leads", membership.Spread, leader, 4)
		net.Isolate(others[1].self.Name)
		time.Sleep(3 * leader.timing.Lease)
		carryOut("another one is gone", membership.Spread, others[0], 4)
		net.Heal()
		mustBeReady(t, others[1])
		time.Sleep(5 * time.Second)
		carryOut("all are well", membership.Spread, others[0], 3)
		time.Sleep(15 * time.Second)
		carryOut("nothing", membership.Dismiss, others[0], 4) // four are better after all
		// A demoted member is not promoted, even if that was decided before it was demoted.
		demote := state.Command{Change: state.SetVote{Node: others[0].self.ID, Demotion: new(state.Demotion)}}
		if _, err := leader.replica.Writes.Do(t.Context(), demote); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		carryOut("an operator has demoted it", membership.Promote, others[0], 3)
		carryOut("three are left", membership.Spread, others[1], 3)
	})
}

// A leader that stands for election ends its term. So one that must not lead, and has offered the
// leadership to everybody in vain, can offer it again in the next term.
func TestLeaderStandsAgain(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		leader, _ := leaderOf(t, nodes)
		l, term := leader.replica.Leading.Load(), leader.replica.Term()
		leader.replica.Stand(t.Context())
		select {
		case <-l.Ctx.Done():
		case <-time.After(5 * time.Second):
			t.Fatal("its term goes on")
		}
		for _, n := range nodes {
			mustBeReady(t, n)
		}
		time.Sleep(5 * time.Second)
		next, _ := leaderOf(t, nodes)
		if now := next.replica.Term(); now <= term || next.replica.Leading.Load().HasOffered() {
			t.Errorf("the term was %d and is %d", term, now)
		}
		if err := next.storage.Store(t.Context(), "k", []byte("1")); err != nil {
			t.Error(err)
		}
	})
}

// A demoted leader whose offers come to nothing goes on leading. It does not hold an election for
// each of them without end.
func TestOffersInVain(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := fleet(t, net, []string{"a", "b", "c", "d"}, nil)
		time.Sleep(15 * time.Second)
		leader, others := leaderOf(t, nodes)
		for _, from := range others { // each has two of four votes
			for _, to := range others {
				if from != to {
					net.Block(from.self.Name, to.self.Name)
				}
			}
		}
		before := leader.replica.Term()
		demote := state.Command{Change: state.SetVote{Node: leader.self.ID, Demotion: new(state.Demotion)}}
		if _, err := leader.replica.Writes.Do(t.Context(), demote); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Minute)
		elections := leader.replica.Term() - before
		t.Logf("%d elections in three minutes", elections)
		if elections == 0 || elections > 30 {
			t.Errorf("there were %d elections", elections)
		}
		if leader.replica.Leading.Load() == nil {
			t.Error("it leads no more, and nobody else can")
		}
		if err := leader.storage.Store(t.Context(), "k", []byte("1")); err != nil {
			t.Error(err)
		}
		net.Heal()
		time.Sleep(time.Minute)
		if now, _ := leaderOf(t, nodes); now == leader {
			t.Error("it still leads, and others could")
		}
	})
}
