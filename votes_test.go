package flotilla_test

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// wantVoting waits until every node that runs takes these for the voters, by their names.
func wantVoting(t *testing.T, c *clustertest.Cluster, want string) {
	t.Helper()
	var voters string
	for range 400 {
		same := true
		for _, i := range c.Live() {
			all, _ := membersOf(c, i)
			var names []string
			for _, m := range all {
				name, _, _ := strings.Cut(m, " ")
				names = append(names, name)
			}
			voters = strings.Join(names, " ")
			same = same && voters == want
		}
		if same {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("the voters are %s, want %s", voters, want)
}

// memberOf returns what node i knows of a member.
func memberOf(t *testing.T, c *clustertest.Cluster, i int, name string) flotilla.Member {
	t.Helper()
	for _, m := range c.Nodes[i].Status().Members {
		if m.Name == name {
			return m
		}
	}
	t.Fatalf("%s is no member", name)
	return flotilla.Member{}
}

// The votes are spread over zones. So the loss of a zone is the loss of one vote.
func TestVotesAreSpreadOverZones(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(i int, cfg *flotilla.Config) { cfg.Zone = []string{"x", "y", "y"}[i] })
		c.Settle()
		steady(t, c, 3)
		time.Sleep(15 * time.Second)
		wantVoting(t, c, "n0 n1 n2") // two zones: nothing better is possible
		first := c.Leader()
		c.Add(func(_ int, cfg *flotilla.Config) { cfg.Zone = "z" })
		c.Settle()
		time.Sleep(30 * time.Second)
		rest, want := "n1", "n0 n2 n3"
		if memberOf(t, c, 0, rest).Voter {
			rest, want = "n2", "n0 n1 n3"
		}
		wantVoting(t, c, want)
		if c.Leader() != first {
			t.Errorf("the leader was n%d, and is n%d", first, c.Leader())
		}
		if m := memberOf(t, c, 0, rest); m.Zone != "y" || !strings.Contains(m.Why, "survive the loss of a zone better without its vote") {
			t.Errorf("the one without a vote: %+v", m)
		}
		term := c.Nodes[0].Status().Term
		time.Sleep(5 * time.Minute)
		wantVoting(t, c, want)
		if now := c.Nodes[0].Status().Term; now != term {
			t.Errorf("the term was %d and is %d", term, now)
		}
		for _, i := range []int{1, 2} { // zone y is lost
			c.Kill(i)
		}
		store(t, c.Nodes[0], "k", "1")
	})
}

// A member that an operator has demoted does not vote, under any leader. What would endanger the
// majority is refused.
func TestOperatorDemotes(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 4, nil)
		c.Settle()
		steady(t, c, 4)
		leader := c.Leader()
		name := func(i int) string { return c.Config(i).Name }
		id := func(i int) string { return c.Nodes[i].Status().ID }
		vote := func(what string, q remote.VoteRequest, refused bool, part string) {
			t.Helper()
			got, err := office(t, c, c.Live()[0]).Vote(t.Context(), q)
			wantAnswer(t, what, got, err, refused, part)
		}
		vote("no member", remote.VoteRequest{Node: strings.Repeat("0", 32), Demote: true}, true, "is no member")
		vote("the leader", remote.VoteRequest{Node: id(leader), Demote: true}, false, name(leader)+" does not vote")
		if now := c.Leader(); now == leader {
			t.Errorf("%s leads after it was demoted", name(leader))
		}
		vote("again", remote.VoteRequest{Node: id(leader), Demote: true}, false, name(leader)+" does not vote")
		demoted := memberOf(t, c, leader, name(leader))
		if demoted.Voter || !demoted.Demoted || !strings.Contains(demoted.Why, "flotilla members promote") {
			t.Errorf("the demoted member: %+v", demoted)
		}
		var others []int
		for i := range 4 {
			if i != leader {
				others = append(others, i)
			}
		}
		vote("one of three", remote.VoteRequest{Node: id(others[0]), Demote: true}, true, "2 voters would be left, fewer than 3")

		// The next leader honours it, although the member could take the place of a dead one.
		c.Kill(c.Leader())
		time.Sleep(time.Minute)
		if m := memberOf(t, c, leader, name(leader)); m.Voter || !m.Present {
			t.Errorf("the demoted member, after the death of a voter: %+v", m)
		}
		for _, i := range others {
			if alive := c.Nodes[i].Status(); alive.Ready {
				vote("one of two that are needed", remote.VoteRequest{Node: id(i), Demote: true, Few: true}, true, "only 1 of the 2 voters that are left would be there")
			}
		}
		vote("the demoted member", remote.VoteRequest{Node: id(leader)}, false, name(leader)+" votes")
		vote("again", remote.VoteRequest{Node: id(leader)}, false, name(leader)+" votes")
		time.Sleep(15 * time.Second)
		wantVoters(t, c, living(c)) // it takes the place of the dead one
		for _, i := range c.Live() {
			if i != c.Leader() {
				vote("down to two", remote.VoteRequest{Node: id(i), Demote: true, Few: true}, false, "does not vote")
				break
			}
		}
		steady(t, c, 2)
	})
}

// Two machines and a witness go on when either machine dies: with writes, roles and addresses. The
// witness neither leads nor serves.
func TestTwoMachinesAndAWitness(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		f := newAddressFleet(t, 7, 2, 1, nil, nil)
		w := f.c.Add(func(_ int, cfg *flotilla.Config) { cfg.Witness = true })
		f.c.Settle()
		steady(t, f.c, 3)
		f.start()
		f.settled(10 * time.Second)
		terms := watchLeadership(t, f.c, w)
		first := f.owner(0)
		for _, i := range []int{first, 1 - first} {
			f.kill(i, true)
			took := f.await("the address has moved", 3*time.Second, func() bool { return f.owner(0) == 1-i })
			t.Logf("the address of n%d has moved after %v", i, took)
			survivor := f.c.Nodes[1-i]
			start := time.Now()
			store(t, survivor, "k", f.c.Config(i).Name)
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("a write took %v after n%d was killed", took, i)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			held := false
			if err := survivor.Hold(ctx, flotilla.Role{Name: "r"}, func(context.Context, flotilla.Tenure) error {
				held = true
				return nil
			}); err != nil || !held {
				t.Errorf("a role after n%d was killed: %v", i, err)
			}
			cancel()
			f.restart(i)
			f.c.Settle()
			time.Sleep(15 * time.Second)
		}
		f.alone()
		if n := terms(); n > 0 {
			t.Errorf("the witness has led %d times", n)
		}
		witness := f.c.Nodes[w]
		if err := witness.Hold(t.Context(), flotilla.Role{Name: "r"}, nil); err == nil || !strings.Contains(err.Error(), "a witness, which holds no roles") {
			t.Errorf("a role on the witness: %v", err)
		}
		if err := witness.Serve(t.Context(), nil, "example.com"); err == nil || !strings.Contains(err.Error(), "a witness serves no clients") {
			t.Errorf("serving on the witness: %v", err)
		}
		if _, err := witness.Listen("tcp", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "a witness serves no clients") {
			t.Errorf("listening on the witness: %v", err)
		}
		if _, err := witness.TLSConfig("example.com"); err == nil || !strings.Contains(err.Error(), "a witness serves no clients") {
			t.Errorf("certificates on the witness: %v", err)
		}
		got, err := office(t, f.c, 0).Transfer(t.Context(), remote.TransferRequest{From: f.c.Nodes[f.c.Leader()].Status().ID, To: witness.Status().ID})
		wantAnswer(t, "the leadership for the witness", got, err, true, "is a witness")
		if s := f.c.Nodes[0].Status(); len(s.Peers) > 0 {
			t.Errorf("its settings differ: %+v", s.Peers)
		}
	})
}

// watchLeadership counts how often a node begins to lead. What it returns ends it.
func watchLeadership(t *testing.T, c *clustertest.Cluster, node int) (times func() int) {
	ctx, cancel := context.WithCancel(t.Context())
	n, count := c.Nodes[node], 0
	var watching sync.WaitGroup
	watching.Go(func() {
		leads := false
		for s := range n.Watch(ctx) {
			if now := s.Leader == s.ID; now != leads {
				if leads = now; leads {
					count++
				}
			}
		}
	})
	t.Cleanup(cancel)
	return func() int {
		cancel()
		watching.Wait()
		return count
	}
}

// A witness may be the only one that is left with the newest entries. It then leads until the other
// machine has them, and no longer.
func TestWitnessWithTheLongestLog(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 2, nil)
		w := c.Add(func(_ int, cfg *flotilla.Config) { cfg.Witness = true })
		c.Settle()
		steady(t, c, 3)
		time.Sleep(5 * time.Second)
		first := c.Leader()
		behind := 1 - first
		c.Isolate(behind)
		store(t, c.Nodes[first], "k", "1") // the witness has it, and the other machine has not
		terms := watchLeadership(t, c, w)
		c.Kill(first)
		c.Heal()
		start := time.Now()
		for c.Nodes[behind].Status().Leader != c.Nodes[behind].Status().ID {
			if time.Since(start) > 10*time.Second {
				t.Fatalf("n%d does not lead: %+v", behind, c.Nodes[behind].Status())
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Logf("the machine leads after %v", time.Since(start))
		store(t, c.Nodes[behind], "l", "2")
		wantEverywhere(t, c, "k", "1")
		time.Sleep(10 * time.Second)
		if c.Leader() != behind {
			t.Errorf("n%d leads", c.Leader())
		}
		if n := terms(); n != 1 {
			t.Errorf("the witness has led %d times", n)
		}
	})
}

// A witness forms no cluster, alone or with others.
func TestWitnessFormsNoCluster(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, func(_ int, cfg *flotilla.Config) { cfg.Witness, cfg.Expect = true, 1 })
		time.Sleep(30 * time.Second)
		if s := c.Nodes[0].Status(); s.Cluster != "" || s.Ready {
			t.Errorf("a witness alone: %+v", s)
		}
		c.Add(func(_ int, cfg *flotilla.Config) { cfg.Expect = 1 })
		c.Settle()
		if c.Leader() != 1 {
			t.Error("the witness leads")
		}
	})
}

// The directory of a witness has all that the cluster had. A cluster that was recovered from it is
// led by a node again as soon as one votes.
func TestClusterOfARecoveredWitness(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 2, nil)
		w := c.Add(func(_ int, cfg *flotilla.Config) { cfg.Witness = true })
		c.Settle()
		steady(t, c, 3)
		store(t, c.Nodes[0], "k", "1")
		for i := range 3 {
			c.Kill(i)
		}
		recovered(t, c, w, true)
		c.Restart(w)
		c.SettleNodes(w)
		for i := range 2 {
			if err := os.RemoveAll(c.Config(i).Dir); err != nil {
				t.Fatal(err)
			}
			c.Config(i).Peers, c.Config(i).Expect = flotilla.Static(c.Config(w).Name+":7373"), 0
			c.Restart(i)
		}
		c.Settle()
		steady(t, c, 3)
		time.Sleep(5 * time.Second)
		if c.Leader() == w {
			t.Error("the witness leads still")
		}
		wantEverywhere(t, c, "k", "1")
	})
}
