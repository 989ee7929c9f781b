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

// A request to open a session that arrives late, of a node's earlier process or a second time of
// the one that runs, ends the session of the process that runs now, whose lease lasts.
func TestLateOpenOfEarlierProcess(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		leader, others := leaderOf(t, nodes)
		holder, second := others[0], others[1]
		tenure := <-holdUntil(t.Context(), holder, Role{Name: "r"})
		next := holdUntil(t.Context(), second, Role{Name: "r"})
		number := leader.store.State().Number(holder.self.ID)
		if _, err := leader.members.ServeOpen(t.Context(), holder.self.ID, openRequest(self.NewIncarnation(0), 0)); err == nil || !strings.Contains(err.Error(), "one of the two data directories is a copy") {
			t.Errorf("another process asks for a session while the holder's runs, and is told %v", err)
		}
		open := func(boot string, seen uint64, before ...string) {
			// as if the leader had proposed it before it knew better
			t.Helper()
			time.Sleep(time.Second)
			c := state.Command{Node: holder.self.ID, Change: state.OpenSession{Incarnation: boot, Processes: append(before, boot), Replaces: seen, Clean: true}}
			last := leader.store.State().Index
			if err := leader.replica.ChangeSession(t.Context(), c, func(s *state.State) bool { return s.Index > last }); err != nil {
				t.Fatalf("the request proves nothing, since the leader does not propose it: %v", err)
			}
			time.Sleep(time.Second)
			if leader.store.State().Index == last {
				t.Fatal("the request proves nothing, since nothing was committed")
			}
		}
		for _, late := range []struct{ of, boot string }{
			{"its earlier process", self.NewIncarnation(0)},
			{"its own process", holder.self.Incarnation},
		} {
			open(late.boot, 0)
			if got := leader.store.State().Number(holder.self.ID); got != number {
				t.Fatalf("a late request of %s has replaced session %d by %d", late.of, number, got)
			}
			select {
			case <-next:
				t.Errorf("the role is granted again %v before the first holder's deadline", time.Until(tenure.Deadline()))
			default:
			}
		}
		// One that knows the session that it replaces is no late one.
		open(self.NewIncarnation(state.StartOf(holder.self.Incarnation)+1), number, holder.self.Incarnation)
		if got := leader.store.State().Number(holder.self.ID); got == number {
			t.Errorf("a request of the next process, which knows session %d, has not replaced it", number)
		}
	})
}

// openRequest is the request of a process to the leader for a session. Nothing that it held can be
// seen.
func openRequest(incarnation string, replaces uint64) []byte {
	return membership.OpenSession{
		Incarnation: incarnation, Addr: "x:7373", Replaces: replaces, Clean: true, Processes: []string{incarnation},
	}.Encode()
}

// Only members get sessions: a write would wait for a stranger's.
func TestNoSessionForStrangers(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		l, others := leaderOf(t, nodes)
		stranger := self.NewID()
		_, err := l.members.ServeOpen(t.Context(), stranger, openRequest(self.NewIncarnation(1), 0))
		if err == nil || err.Error() != "not a member of the cluster" {
			t.Errorf("a stranger that asks for a session is told %v", err)
		}
		time.Sleep(time.Second)
		if s := l.store.State(); s.Session(stranger) != nil || s.Sessions.Len() != len(nodes) {
			t.Errorf("%d sessions in a cluster of three", s.Sessions.Len())
		}
		// The same of a member is granted.
		n := others[0]
		number := l.store.State().Number(n.self.ID)
		if _, err := l.members.ServeOpen(t.Context(), n.self.ID, openRequest(n.self.Incarnation, number)); err != nil || l.store.State().Number(n.self.ID) <= number {
			t.Errorf("a member that asks for a session is told %v", err)
		}
	})
}
