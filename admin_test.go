package flotilla_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// office is an operator's place: a client of all nodes of a cluster, which dials from the machine
// of one that is not killed.
func office(t *testing.T, c *clustertest.Cluster, from int) *remote.Client {
	t.Helper()
	var addrs []string
	for i := range c.Nodes {
		addrs = append(addrs, c.Config(i).Name+":7373")
	}
	return operator(t, c, from, c.Config(0).Secrets[0], addrs...)
}

// wantAnswer checks what has become of a request.
func wantAnswer(t *testing.T, what string, got remote.Answer, err error, refused bool, part string) {
	t.Helper()
	if err != nil || got.Refused != refused || !strings.Contains(got.Text, part) {
		t.Errorf("%s: %+v, %v; want refused %v and %q", what, got, err, refused, part)
	}
}

// wantServers waits until every node that runs takes these for the members, which it needs no more
// than a few leases for.
func wantServers(t *testing.T, c *clustertest.Cluster, names ...string) {
	t.Helper()
	for range 100 {
		same := true
		for _, i := range c.Live() {
			var have []string
			for _, m := range c.Nodes[i].Status().Members {
				have = append(have, m.Name)
			}
			same = same && slices.Equal(have, names)
		}
		if same {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, i := range c.Live() {
		t.Errorf("n%d knows the members %v, want %v", i, c.Nodes[i].Status().Members, names)
	}
}

// steady waits until n nodes vote.
func steady(t *testing.T, c *clustertest.Cluster, voters int) {
	t.Helper()
	for range 600 {
		n := 0
		for _, m := range c.Nodes[c.Live()[0]].Status().Members {
			if m.Voter {
				n++
			}
		}
		if n == voters {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("there are not %d voters: %+v", voters, c.Nodes[c.Live()[0]].Status().Members)
}

func TestOperatorSeesAllNodes(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		c.Kill(2)
		time.Sleep(5 * time.Second)
		for asked := range 2 {
			client := operator(t, c, 0, c.Config(0).Secrets[0], fmt.Sprintf("n%d:7373", asked))
			reply, err := client.Status(t.Context(), "")
			if err != nil || len(reply.Nodes) != 3 || reply.Nodes[0].Name != fmt.Sprintf("n%d", asked) {
				t.Fatalf("asking n%d: %+v, %v", asked, reply, err)
			}
			for _, n := range reply.Nodes {
				if n.Name == "n2" {
					if len(n.Status) > 0 || n.Why != "nobody listens at its address" || n.Addr != "n2:7373" {
						t.Errorf("the node that is dead: %+v", n)
					}
					continue
				}
				var s flotilla.Status
				if err := json.Unmarshal(n.Status, &s); err != nil || s.ID != n.ID || s.Name != n.Name || !s.Ready || n.Why != "" {
					t.Errorf("asking n%d: %s %+v, %v, %q", asked, n.Name, s, err, n.Why)
				}
			}
			other := reply.Nodes[1]
			if reply, err := client.Status(t.Context(), other.ID); err != nil || len(reply.Nodes) != 1 || reply.Nodes[0].ID != other.ID {
				t.Errorf("asking for one: %+v, %v", reply, err)
			}
			if reply, err := client.Status(t.Context(), strings.Repeat("0", 32)); err != nil || len(reply.Nodes) != 0 {
				t.Errorf("asking for none: %+v, %v", reply, err)
			}
		}
		c.Kill(1)
		time.Sleep(5 * time.Second)
		reply, err := office(t, c, 0).Status(t.Context(), "")
		if err != nil || len(reply.Nodes) != 3 || reply.Nodes[0].Name != "n0" || !strings.Contains(reply.Nodes[0].Why, "the cluster has no leader") {
			t.Errorf("without a quorum: %+v, %v", reply, err)
		}
	})
}

// A node that has found nobody says so, and what it waits for.
func TestOperatorSeesANodeWithoutCluster(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, func(_ int, cfg *flotilla.Config) { cfg.Expect = 3 })
		time.Sleep(5 * time.Second)
		reply, err := office(t, c, 0).Status(t.Context(), "")
		if err != nil || len(reply.Nodes) != 1 || reply.Nodes[0].Name != "n0" || len(reply.Nodes[0].Status) == 0 || reply.Nodes[0].Why == "" {
			t.Errorf("%+v, %v", reply, err)
		}
		_, err = office(t, c, 0).Remove(t.Context(), remote.RemoveRequest{Node: strings.Repeat("0", 32)})
		if err == nil || !strings.Contains(err.Error(), "the node cannot answer now: node is not ready: ") {
			t.Errorf("a removal: %v", err)
		}
	})
}

func TestOperatorRemovesADeadMember(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		client := office(t, c, c.Leader())
		dead := (c.Leader() + 1) % 3
		id := c.Nodes[dead].Status().ID
		remove := remote.RemoveRequest{Node: id}
		name := c.Config(dead).Name
		got, err := client.Remove(t.Context(), remove)
		wantAnswer(t, "a member that is present", got, err, true, name+" is present; stop it first")

		c.Kill(dead)
		got, err = client.Remove(t.Context(), remove)
		wantAnswer(t, "a member that was killed a moment ago", got, err, true, name+" is present")
		time.Sleep(5 * time.Second)
		got, err = client.Remove(t.Context(), remove)
		wantAnswer(t, "a dead member", got, err, false, name+" is no member any more")
		var left []string
		for _, i := range c.Live() {
			left = append(left, c.Config(i).Name)
		}
		wantServers(t, c, left...)
		got, err = client.Remove(t.Context(), remove)
		wantAnswer(t, "a member that was removed", got, err, false, "is no member any more")
		store(t, c.Nodes[c.Live()[0]], "k", "1")

		// with its directory it is told, and with another it is a new node
		c.Restart(dead)
		time.Sleep(10 * time.Second)
		if err := c.Nodes[dead].Ready(t.Context()); !errors.Is(err, flotilla.ErrRemoved) {
			t.Errorf("the removed node: %v", err)
		}
		c.Kill(dead)
		c.Config(dead).Dir = t.TempDir()
		c.Restart(dead)
		c.Settle()
		wantServers(t, c, "n0", "n1", "n2")
	})
}

// Nobody is taken out whom the others need to go on, not by force either.
func TestOperatorKeepsTheQuorum(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		leader := c.Leader()
		dead, other := (leader+1)%3, (leader+2)%3
		id := func(i int) string { return c.Nodes[i].Status().ID }
		client := office(t, c, leader)
		got, err := client.Remove(t.Context(), remote.RemoveRequest{Node: id(leader), Force: true})
		wantAnswer(t, "the leader", got, err, true, c.Config(leader).Name+" leads the cluster; hand the leadership over first")

		c.Kill(dead)
		time.Sleep(5 * time.Second)
		got, err = client.Remove(t.Context(), remote.RemoveRequest{Node: id(other), Force: true})
		wantAnswer(t, "the one that is needed", got, err, true, "without "+c.Config(other).Name+" only 1 of the 2 voters that are left would be there")
		got, err = client.Remove(t.Context(), remote.RemoveRequest{Node: id(dead)})
		wantAnswer(t, "the dead one", got, err, false, "is no member any more")
		// two that are there: one of them can go by force, and the last cannot
		got, err = client.Remove(t.Context(), remote.RemoveRequest{Node: id(other), Force: true})
		wantAnswer(t, "one of two, by force", got, err, false, c.Config(other).Name+" is no member any more")
		store(t, c.Nodes[leader], "k", "1")
		time.Sleep(10 * time.Second)
		if err := c.Nodes[other].Ready(t.Context()); !errors.Is(err, flotilla.ErrRemoved) {
			t.Errorf("the node that was removed while it ran: %v", err)
		}
		if s := c.Nodes[leader].Status(); len(s.Members) != 1 || !s.Ready {
			t.Errorf("who is left: %+v", s)
		}
	})
}

// Without a quorum nothing is changed, and the error says what to do.
func TestOperatorChangesNothingWithoutQuorum(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		id := c.Nodes[2].Status().ID
		c.Kill(1)
		c.Kill(2)
		time.Sleep(5 * time.Second) // before that, a leader may refuse what would cost the majority
		client := office(t, c, 0)
		start := time.Now()
		_, err := client.Remove(t.Context(), remote.RemoveRequest{Node: id, Force: true})
		var unreachable *remote.UnreachableError
		if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), "n0:7373: the cluster has no leader; a majority of its voters must run") {
			t.Errorf("a removal: %v", err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("it took %v to say so", took)
		}
		if n := len(c.Nodes[0].Status().Members); n != 3 {
			t.Errorf("there are %d members", n)
		}
	})
}

func TestOperatorTransfersTheLeadership(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		steady(t, c, 3)
		client := office(t, c, 0)
		first := c.Leader()
		id := func(i int) string { return c.Nodes[i].Status().ID }
		ask := func(q remote.TransferRequest, refused bool, part string) {
			t.Helper()
			got, err := client.Transfer(t.Context(), q)
			wantAnswer(t, fmt.Sprintf("%+v", q), got, err, refused, part)
		}
		ask(remote.TransferRequest{From: id(first), To: id(first)}, false, c.Config(first).Name+" leads")
		ask(remote.TransferRequest{From: id(first)}, false, " leads")
		c.Settle()
		second := c.Leader()
		if second == first {
			t.Fatal("the same node leads")
		}
		// the same question again changes nothing
		ask(remote.TransferRequest{From: id(first)}, false, c.Config(second).Name+" leads")
		for to := range 3 {
			ask(remote.TransferRequest{From: id(first), To: id(to)}, false, c.Config(to).Name+" leads")
			c.Settle()
			if got := c.Leader(); got != to {
				t.Errorf("n%d leads, want n%d", got, to)
			}
		}
		ask(remote.TransferRequest{From: id(2), To: strings.Repeat("0", 32)}, true, "00000000 is no member")
		c.Kill(1)
		time.Sleep(5 * time.Second)
		ask(remote.TransferRequest{From: id(2), To: id(1)}, true, "n1 is not there; start it first")
		i := c.Add(nil)
		c.Settle()
		ask(remote.TransferRequest{From: id(2), To: id(i)}, true, "n3 does not vote, and so cannot lead")
	})
}

// A node answers a request from a client that has the secret but sends nonsense. Nothing changes.
func TestOperatorSendsNonsenseAboutMembers(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 2, nil)
		c.Settle()
		time.Sleep(10 * time.Second) // the first ticket key is in the state
		before := c.Nodes[0].Status()
		port := operatorPort(t, c)
		for _, path := range []string{remote.CallRemove, remote.CallVote, remote.CallTransfer, remote.CallMove, remote.CallDrain} {
			for _, body := range []string{"", "\x00", "\xff", "\x00\x00", "\x01\x00", "\x01a\x02", "\x00\x01\x00\x00"} {
				if _, reply, err := port.CallAddr(t.Context(), "n0:7373", path, []byte(body)); err == nil || !strings.Contains(err.Error(), "malformed encoding (status 400)") {
					t.Errorf("%s of %q: %q, %v", path, body, reply, err)
				}
			}
		}
		after := c.Nodes[0].Status()
		after.Index, after.Lease.LeftMillis, after.Tickets.AgeSeconds = before.Index, before.Lease.LeftMillis, before.Tickets.AgeSeconds
		after.Lease.IdleMillis = before.Lease.IdleMillis
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("the status has changed (-before +after):\n%s", diff)
		}
	})
}

// wantHeld waits until the roles are held by these nodes, as all that run see it.
func wantHeld(t *testing.T, c *clustertest.Cluster, want map[string]int) {
	t.Helper()
	var got map[string]int
	for range 200 {
		agree := true
		for _, i := range c.Live() {
			got = make(map[string]int)
			for _, r := range c.Nodes[i].Status().Roles {
				for n := range c.Nodes {
					if c.Nodes[n].Status().ID == r.Holder {
						got[r.Name] = n
					}
				}
			}
			agree = agree && cmp.Equal(want, got)
		}
		if agree {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("roles are held by %v, want %v", got, want)
}

// A node that an operator drains wants no new clients and no roles, goes on serving, and takes part
// again when that is undone.
func TestOperatorDrainsANode(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for name, public := range map[string]bool{"roles": false, "public roles": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clustertest.New(t, 3, nil)
				c.Settle()
				client := office(t, c, 0)
				s := newStage(t)
				play := s.play
				if public {
					play = s.playPublic
				}
				for _, role := range []string{"a", "b"} {
					for i := range 3 {
						play(t.Context(), c, i, flotilla.Role{Name: role, Priority: 10 - i})
					}
				}
				wantHeld(t, c, map[string]int{"a": 0, "b": 0})
				id := c.Nodes[0].Status().ID
				// the claims of one that waits are withdrawn, and made again
				for _, step := range []struct {
					undo bool
					want int
				}{{false, 1}, {true, 2}} {
					if got, err := client.Drain(t.Context(), remote.DrainRequest{Node: c.Nodes[2].Status().ID, Undo: step.undo}); err != nil || got.Refused {
						t.Errorf("drain of one that waits: %+v, %v", got, err)
					}
					time.Sleep(5 * time.Second)
					for _, r := range c.Nodes[1].Status().Roles {
						if r.Waiting != step.want {
							t.Errorf("undone %v: %d wait for %s, want %d", step.undo, r.Waiting, r.Name, step.want)
						}
					}
				}
				for range 2 { // the second time changes nothing
					got, err := client.Drain(t.Context(), remote.DrainRequest{Node: id})
					wantAnswer(t, "drain", got, err, false, "n0 is drained")
					wantHeld(t, c, map[string]int{"a": 1, "b": 1})
					if st := c.Nodes[0].Status(); !st.Ready || !st.Draining || !st.Drained || !st.Lease.Held {
						t.Errorf("the drained node: %+v", st)
					}
					if code, text := readyz(c.Nodes[0]); code != 503 || text != "drained\n" {
						t.Errorf("its /readyz: %d %q", code, text)
					}
				}
				store(t, c.Nodes[0], "k", "1") // it is a member all the same
				wantEverywhere(t, c, "k", "1")
				// not by a move, nor because the others are gone, does it get a role
				fence := c.Nodes[1].Status().Roles[0].Fence
				got, err := client.Move(t.Context(), remote.MoveRequest{Role: "a", Fence: fence, To: id})
				wantAnswer(t, "move to the drained node", got, err, true, "n0 does not wait for a")
				got, err = client.Drain(t.Context(), remote.DrainRequest{Node: c.Nodes[1].Status().ID})
				wantAnswer(t, "drain of another", got, err, false, "n1 is drained, and has given up its roles (2)")
				wantHeld(t, c, map[string]int{"a": 2, "b": 2})
				got, err = client.Drain(t.Context(), remote.DrainRequest{Node: c.Nodes[2].Status().ID})
				wantAnswer(t, "drain of the last", got, err, false, "n2 is drained, and has given up its roles (2)")
				time.Sleep(time.Minute)
				wantHeld(t, c, map[string]int{})

				got, err = client.Drain(t.Context(), remote.DrainRequest{Node: id, Undo: true})
				wantAnswer(t, "undrain", got, err, false, "n0 takes part again")
				wantHeld(t, c, map[string]int{"a": 0, "b": 0})
				if st := c.Nodes[0].Status(); st.Draining || st.Drained {
					t.Errorf("the node that was drained: %+v", st)
				}
				if code, text := readyz(c.Nodes[0]); code != 200 {
					t.Errorf("its /readyz: %d %q", code, text)
				}
				c.Kill(2)
				time.Sleep(5 * time.Second)
				got, err = client.Drain(t.Context(), remote.DrainRequest{Node: c.Nodes[2].Status().ID})
				wantAnswer(t, "drain of a dead node", got, err, true, "n2 cannot be asked (nobody listens at its address): is it running")
				got, err = client.Drain(t.Context(), remote.DrainRequest{Node: strings.Repeat("0", 32)})
				wantAnswer(t, "drain of nobody", got, err, true, "00000000 is no member")
			})
		})
	}
}

// A holder that does not let go holds the drain up for no longer than it may hold the role.
func TestOperatorDrainsAStubbornNode(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		held, release := make(chan struct{}), make(chan struct{})
		go c.Nodes[0].Hold(t.Context(), flotilla.Role{Name: "r"}, func(context.Context, flotilla.Tenure) error {
			close(held)
			<-release
			return nil
		})
		<-held
		start := time.Now()
		got, err := office(t, c, 0).Drain(t.Context(), remote.DrainRequest{Node: c.Nodes[0].Status().ID})
		wantAnswer(t, "drain", got, err, false, "n0 is drained, and has given up its roles (1)")
		if took := time.Since(start); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("it took %v", took)
		}
		wantHeld(t, c, map[string]int{})
		close(release)
	})
}

// readyz asks a node's health handler.
func readyz(n *flotilla.Node) (int, string) {
	w := httptest.NewRecorder()
	n.Health().ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
	return w.Code, w.Body.String()
}

func TestOperatorMovesRoles(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		s := newStage(t)
		for i := range 2 {
			s.play(t.Context(), c, i, flotilla.Role{Name: "r", Priority: 10 - i})
		}
		wantHeld(t, c, map[string]int{"r": 0})
		fence := c.Nodes[0].Status().Roles[0].Fence
		id := func(i int) string { return c.Nodes[i].Status().ID }
		for asked := range 3 {
			// any node can be asked, and one that is asked again after the role has moved does nothing
			client := operator(t, c, 0, c.Config(0).Secrets[0], fmt.Sprintf("n%d:7373", asked))
			got, err := client.Move(t.Context(), remote.MoveRequest{Role: "r", Fence: fence})
			wantAnswer(t, "yield", got, err, false, "n1 holds r")
			wantHeld(t, c, map[string]int{"r": 1})
		}
		client := office(t, c, 0)
		for _, to := range []int{1, 0, 1} {
			time.Sleep(5 * time.Second) // who has handed over waits for the role again
			got, err := client.Move(t.Context(), remote.MoveRequest{Role: "r", Fence: fence, To: id(to)})
			wantAnswer(t, "move", got, err, false, fmt.Sprintf("n%d holds r", to))
			wantHeld(t, c, map[string]int{"r": to})
		}
		got, err := client.Move(t.Context(), remote.MoveRequest{Role: "r", Fence: fence, To: id(2)})
		wantAnswer(t, "move to one that does not want it", got, err, true, "n2 does not wait for r")
		got, err = client.Move(t.Context(), remote.MoveRequest{Role: "r", Fence: fence, To: strings.Repeat("0", 32)})
		wantAnswer(t, "move to nobody", got, err, true, "r stays where it is: no member has the ID or name 0000")
		got, err = client.Move(t.Context(), remote.MoveRequest{Role: "none", Fence: fence})
		wantAnswer(t, "yield of what nobody holds", got, err, true, "nobody holds the role none")
		c.Kill(0)
		time.Sleep(10 * time.Second)
		got, err = operator(t, c, 1, c.Config(0).Secrets[0], "n1:7373").Move(t.Context(), remote.MoveRequest{Role: "r", Fence: c.Nodes[1].Status().Roles[0].Fence})
		wantAnswer(t, "yield with nobody else", got, err, true, "no other node waits for r")
	})
}
