package flotilla

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// Changes of the voters are a grant's length apart, also when two nodes ask for one at the same
// moment. Otherwise the majority that grants a lease and the one that ends its session might not
// meet, as TestLeaseAcrossVoterChanges shows.
func TestVoterChangesAreALeaseApart(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := fleet(t, simnet.New(), []string{"a", "b", "c", "d", "e"}, nil)
		leader, others := leaderOf(t, nodes)
		start := time.Now()
		for _, n := range others[:2] {
			go n.Leave(t.Context())
		}
		changes := []time.Time{start}
		elected := leader.store.State().Elected
		for len(changes) < 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			s, err := leader.store.Wait(ctx, func(s *state.State) bool { return s.Elected != elected })
			cancel()
			if err != nil {
				t.Fatalf("%d of two nodes have left: %v", len(changes)-1, err)
			}
			elected = s.Elected
			changes = append(changes, time.Now())
		}
		if s := leader.store.State(); len(s.Voters) != 3 || s.Elected != elected {
			t.Errorf("the voters are %v after two of five have left", s.Voters)
		}
		for i, at := range changes[1:] {
			if apart := at.Sub(changes[i]); apart < leader.timing.Grant() {
				t.Errorf("change %d of the voters comes %v after what was before, and a promise binds for %v", i+1, apart, leader.timing.Grant())
			}
		}
	})
}

// The voters do not change while a session may be counting on those before the last change.
func TestVoterChangeWaitsForEverySession(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := fleet(t, net, []string{"a", "b", "c", "d", "e"}, nil)
		leader, others := leaderOf(t, nodes)
		deaf, gone := others[0], others[1]
		l := leader.replica.Leading.Load()
		if _, err := l.AwaitStable(t.Context()); err != nil {
			t.Fatalf("before any change: %v", err)
		}
		for _, n := range nodes {
			net.Block(n.self.Name, deaf.self.Name)
		}
		if err := replica.WaitFuture(t.Context(), l.Raft.RemoveServer(raft.ServerID(gone.self.ID), 0, time.Second)); err != nil {
			t.Fatal(err)
		}
		s, err := leader.store.Wait(t.Context(), func(s *state.State) bool { return !slices.Contains(s.Servers, gone.self.ID) })
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), leader.timing.Retry())
		defer cancel()
		if _, err := l.AwaitStable(ctx); err == nil || !strings.Contains(err.Error(), deaf.self.ID+" has not heard of it") {
			t.Errorf("another change may follow one that %s has not heard of: %v", deaf.self.ID, err)
		}
		settled, err := l.AwaitStable(t.Context())
		if err != nil || settled != s.Elected {
			t.Errorf("settled is configuration %d and not %d: %v", settled, s.Elected, err)
		}
		if leader.store.State().Session(deaf.self.ID) != nil {
			t.Error("another change may follow while the session lasts that has not heard of the last one")
		}
	})
}
