package flotilla

import (
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// The tests in this file are of single guards of who is let in, votes and is removed. Without its
// guard each of them fails: see TESTING.md.

// The leader lets no node in whose Timing is another, whatever other nodes have told it.
func TestAnotherTimingDoesNotJoin(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		leader, others := leaderOf(t, trio(t, simnet.New(), nil))
		x := others[0].members.Greeting()
		x.Member, x.Incarnation = state.Member{ID: self.NewID(), Addr: "x:7373"}, self.NewIncarnation(1)
		x.Settings.Values[membership.TimingSetting] = WAN.String()
		if _, err := leader.members.ServeJoin(t.Context(), x.ID, x); err == nil || !strings.Contains(err.Error(), "its Timing is wan") {
			t.Errorf("it is told %v", err)
		}
		x.Settings.Values[membership.TimingSetting] = LAN.String()
		if _, err := leader.members.ServeJoin(t.Context(), x.ID, x); err != nil {
			t.Errorf("one with the same Timing is told %v", err)
		}
	})
}

// A change is made if its reason is still there when the change of before has settled.
func TestChangesOfThoseWhoAreBack(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := fleet(t, net, []string{"a", "b", "c", "d"}, nil)
		time.Sleep(time.Minute)
		leader, others := leaderOf(t, nodes)
		l := leader.replica.Leading.Load()
		before := voting(t, nodes)
		if err := leader.members.CarryOut(t.Context(), l, membership.Change{Kind: membership.Demote, ID: others[0].self.ID, Why: "it is there"}); err != nil {
			t.Error(err)
		}
		if after := voting(t, nodes); after != before {
			t.Errorf("%d of %d vote after a voter that is there was to be demoted", after, before)
		}

		e := join(t, net, leader, "e", nil)
		mustBeReady(t, e)
		net.Isolate("e")
		time.Sleep(2 * leader.timing.Lease)
		if err := leader.members.CarryOut(t.Context(), l, membership.Change{Kind: membership.Promote, ID: e.self.ID, Why: "it was there"}); err != nil {
			t.Error(err)
		}
		if after := voting(t, nodes); after != before {
			t.Errorf("%d of %d vote after one that is gone was to", after, before)
		}
	})
}

// A member is not removed if the voters that are left could not commit that.
func TestRemovalLeavesAMajority(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		leader, others := leaderOf(t, nodes)
		l := leader.replica.Leading.Load()
		net.Isolate(others[0].self.Name)
		if _, err := leader.store.Wait(t.Context(), func(s *state.State) bool { return s.Session(others[0].self.ID) == nil }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(leader.timing.Lease)
		err := leader.members.Remove(t.Context(), l, others[1].self.ID)
		if err == nil || !strings.Contains(err.Error(), "only 1 of the 2 voters that are left are there") {
			t.Errorf("the last follower is removed: %v", err)
		}
		if err := leader.members.Remove(t.Context(), l, others[0].self.ID); err != nil {
			t.Errorf("the dead voter is not removed: %v", err)
		}
	})
}
