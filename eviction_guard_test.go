package flotilla

import (
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// The tests in this file are of single guards against a node that was evicted. Without its guard
// each of them fails: see TESTING.md.

// An evicted node is heard as long as it is a member: the others may need it for a majority. Then
// no node answers it, also before the secret is another one.
func TestEvictedNodeIsRefused(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		leader, others := leaderOf(t, trio(t, simnet.New(), nil))
		out, follower := others[0], others[1]
		time.Sleep(5 * time.Second) // until the cluster has its version
		if _, err := leader.replica.Writes.Do(t.Context(), state.Command{Change: state.EvictMember{Node: out.self.ID}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		calls := func(to *Node) error {
			_, err := out.replica.Port.Call(t.Context(), to.self.ID, rpc.Process, rpc.Empty{}.Encode())
			return err
		}
		greets := func(to *Node) *membership.Refusal {
			x := out.members.Greeting()
			x.Last, x.Cluster = 0, "" // it claims that it was never a member
			answer, err := to.members.ServeHello(t.Context(), x.ID, x)
			if err != nil {
				t.Fatal(err)
			}
			return answer.Refused
		}
		for _, n := range []*Node{leader, follower} {
			if err, no := calls(n), greets(n); err != nil || no != nil || n.replica.Admit(out.self.ID) != nil {
				t.Errorf("%s refuses a member: %v, %+v", n.self.Name, err, no)
			}
		}
		if err := leader.members.Remove(t.Context(), leader.replica.Leading.Load(), out.self.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		for _, n := range []*Node{leader, follower} {
			if err := calls(n); err == nil || !strings.Contains(err.Error(), "the cluster has evicted this node") {
				t.Errorf("%s answers a call: %v", n.self.Name, err)
			}
			if no := greets(n); no == nil || !strings.Contains(no.Why, "the cluster has evicted it") {
				t.Errorf("%s answers a greeting: %+v", n.self.Name, no)
			}
		}
		if err := follower.replica.Admit(out.self.ID); err == nil || !strings.Contains(err.Error(), "not a member of the cluster") {
			t.Errorf("it may speak raft: %v", err)
		}
		x := leader.members.Greeting()
		x.Member, x.Incarnation = state.Member{ID: self.NewID(), Addr: "x:7373"}, self.NewIncarnation(1)
		if _, err := leader.members.ServeJoin(t.Context(), x.ID, x); err == nil || !strings.Contains(err.Error(), "so no node may join") {
			t.Errorf("another node is told: %v", err)
		}
	})
}
