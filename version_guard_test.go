package flotilla

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A command that a member may not know is refused before it gets into the log, on every way there.
// In the log it would stop that member.
func TestCommandsWaitForTheVersion(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		time.Sleep(10 * time.Second) // until nothing is written any more
		leader, others := leaderOf(t, nodes)
		later := state.RaiseVersion{To: state.Version + 2}
		always := func(*state.State) bool { return true }
		propose := map[string]func() error{
			"a member": func() error {
				_, err := others[0].replica.Writes.Do(t.Context(), state.Command{Change: later})
				return err
			},
			"the leader, in its session": func() error {
				_, err := leader.replica.Writes.Do(t.Context(), state.Command{Change: later})
				return err
			},
			"the leader, without a session": func() error {
				return leader.replica.Leading.Load().ApplyAndNotify(t.Context(), &state.Command{Change: later}, always)
			},
			"the leader, of a session": func() error {
				return leader.replica.ChangeSession(t.Context(), state.Command{Change: later}, always)
			},
			"the failure detector": func() error { return leader.replica.LeaseTerm().Propose(later) },
		}
		last := leader.replica.LastIndex()
		for who, do := range propose {
			early := new(state.VersionError)
			if err := do(); !errors.As(err, &early) || early.Needs != later.To-1 {
				t.Errorf("%s proposes it: %v", who, err)
			}
		}
		time.Sleep(time.Second)
		for _, n := range nodes {
			if err := n.life.Failure(); err != nil || n.replica.LastIndex() != last {
				t.Errorf("%s has entry %d, and before there was %d: %v", n.self.Name, n.replica.LastIndex(), last, err)
			}
		}
	})
}

// A node whose program does not support the cluster version is not let in, also if no greeting has
// told it so.
func TestOlderProgramDoesNotJoin(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		leader, _ := leaderOf(t, nodes)
		time.Sleep(time.Second)
		in := leader.members.Greeting()
		in.Member = state.Member{ID: "0123456789abcdef0123456789abcdef", Name: "d", Addr: "d:7373"}
		in.Incarnation, in.Processes, in.Supports = "p1", []string{"p1"}, state.Version-1
		_, err := leader.members.ServeJoin(t.Context(), in.ID, in)
		if want := "upgrade the program of d"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("it is answered %v, want %q", err, want)
		}
		if leader.replica.IsServer(in.ID) {
			t.Error("it is a member")
		}
	})
}
