package flotilla_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// membersOf returns the names of the members that vote, and of those that do not, as node i sees
// them.
func membersOf(c *clustertest.Cluster, i int) (voters, others []string) {
	for _, m := range c.Nodes[i].Status().Members {
		id := m.Name + " " + m.ID
		if m.Voter {
			voters = append(voters, id)
		} else {
			others = append(others, id)
		}
	}
	slices.Sort(voters)
	return voters, others
}

// living is what membersOf should say of the voters when all that live vote.
func living(c *clustertest.Cluster) (all []string) {
	for _, i := range c.Live() {
		s := c.Nodes[i].Status()
		all = append(all, s.Name+" "+s.ID)
	}
	slices.Sort(all)
	return all
}

func wantVoters(t *testing.T, c *clustertest.Cluster, want []string) {
	t.Helper()
	for _, i := range c.Live() {
		if voters, others := membersOf(c, i); !slices.Equal(voters, want) {
			t.Errorf("to n%d the voters are %v (others: %v), want %v", i, voters, others, want)
		}
	}
}

// Machines are replaced by others with empty directories, one a minute. The cluster goes on all the
// time, and the dead do not vote.
func TestMachinesAreReplaced(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { cfg.RemoveDead = 4 * time.Minute })
		c.Settle()
		store(t, c.Nodes[0], "k", "1")
		for round := range flotilla.Cases(t, 2, 1) {
			for i := range 3 {
				c.Kill(i)
				if err := os.RemoveAll(c.Config(i).Dir); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				store(t, c.Nodes[(i+1)%3], "k", "1")
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("round %d: a write took %v after n%d was lost", round, took, i)
				}
				c.Restart(i)
				c.Settle()
				time.Sleep(time.Minute)
				wantVoters(t, c, living(c))
			}
		}
		for _, m := range c.Nodes[0].Status().Members {
			if !m.Present && (m.Voter || !strings.Contains(m.Why, "is removed when it has been gone for 4m")) {
				t.Errorf("a dead member: %+v", m)
			}
		}
		wantEverywhere(t, c, "k", "1")
		time.Sleep(4 * time.Minute)
		for _, i := range c.Live() {
			if members := c.Nodes[i].Status().Members; len(members) != 3 {
				t.Errorf("four minutes later n%d counts %d members", i, len(members))
			}
		}
	})
}

// A dead voter that was replaced comes back as a member without a vote, and votes when it is
// needed.
func TestReplacedVoterComesBack(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 5, nil)
		c.Settle()
		spare := c.Add(nil)
		c.Settle()
		time.Sleep(15 * time.Second)
		name := func(i int) string { s := c.Nodes[i].Status(); return s.Name + " " + s.ID }
		want := func(voters ...int) {
			t.Helper()
			var names []string
			for _, i := range voters {
				names = append(names, name(i))
			}
			slices.Sort(names)
			wantVoters(t, c, names)
		}
		want(0, 1, 2, 3, 4)
		for _, m := range c.Nodes[0].Status().Members {
			if !m.Voter && !strings.Contains(m.Why, "5 others vote") {
				t.Errorf("the spare member: %+v", m)
			}
		}
		c.Kill(1)
		time.Sleep(8 * time.Second)
		want(0, 1, 2, 3, 4) // it may be a restart
		time.Sleep(10 * time.Second)
		want(0, 2, 3, 4, spare)
		c.Restart(1)
		c.Settle()
		time.Sleep(30 * time.Second)
		want(0, 2, 3, 4, spare)
		c.Kill(2)
		time.Sleep(20 * time.Second)
		want(0, 1, 3, 4, spare)
	})
}

// After the time that is configured dead members are removed, as long as three voters are left; one
// that comes back after that hears why it cannot. (hashicorp/consul#5922: what is left must be a
// majority, and go on being one when the next one dies.)
func TestDeadMembersAreRemoved(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 5, func(_ int, cfg *flotilla.Config) { cfg.RemoveDead = time.Minute })
		c.Settle()
		time.Sleep(5 * time.Second)
		l := c.Leader()
		gone := []int{(l + 1) % 5, (l + 2) % 5}
		for _, i := range gone {
			c.Kill(i)
		}
		time.Sleep(75 * time.Second)
		wantVoters(t, c, living(c))
		c.Kill((l + 3) % 5)
		store(t, c.Nodes[l], "k", "1")
		time.Sleep(90 * time.Second)
		if voters, _ := membersOf(c, l); len(voters) != 3 {
			t.Errorf("%d voters are left, want 3", len(voters))
		}
		c.Restart(gone[0])
		wantFailure(t, c.Nodes[gone[0]], "has removed it")
		if err := c.Nodes[gone[0]].Ready(t.Context()); !errors.Is(err, flotilla.ErrRemoved) {
			t.Errorf("Ready says %v, want ErrRemoved", err)
		}
	})
}

// Nodes that are restarted one after another stay members, however long each takes and however soon
// the dead are removed, and the cluster lives. (hashicorp/consul#8118)
func TestRollingReboot(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { cfg.RemoveDead = 10 * time.Second })
		c.Settle()
		before, _ := membersOf(c, 0)
		for round := range 4 {
			for i := range 3 {
				c.Kill(i)
				time.Sleep(time.Duration(round*round) * 7 * time.Second)
				c.Restart(i)
				c.Settle()
				store(t, c.Nodes[i], "k", "1")
			}
		}
		wantVoters(t, c, before)
	})
}

// A node without a directory leaves when it is shut down, and is removed when it dies.
func TestNodesWithoutDirectory(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { cfg.Dir = "" })
		c.Settle()
		store(t, c.Nodes[0], "k", "1")
		for round := range 2 {
			for i := range 3 {
				c.Stop(i)
				time.Sleep(time.Second)
				wantVoters(t, c, living(c))
				c.Restart(i)
				c.Settle()
				time.Sleep(15 * time.Second)
				wantVoters(t, c, living(c))
				if n := len(c.Nodes[i].Status().Members); n != 3 {
					t.Errorf("round %d: %d members", round, n)
				}
			}
		}
		for i := range 3 {
			c.Kill(i)
			time.Sleep(15 * time.Second)
			wantVoters(t, c, living(c))
			c.Restart(i)
			c.Settle()
			time.Sleep(15 * time.Second)
			wantVoters(t, c, living(c))
		}
		wantEverywhere(t, c, "k", "1")
	})
}

// All at once: none waits for long, and the last one does not wait for others that are gone.
func TestNodesWithoutDirectoryEndTogether(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { cfg.Dir = "" })
		c.Settle()
		start := time.Now()
		done := make(chan error)
		for _, n := range c.Nodes {
			go func() { done <- n.Shutdown(t.Context()) }()
		}
		for range c.Nodes {
			<-done
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		for i := range c.Nodes {
			c.Kill(i)
		}
	})
}

// An address says nothing about who is there.
func TestAddressesAreNoIdentities(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	t.Run("all nodes move at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) {
				cfg.Peers = flotilla.Static("n0:7373", "n1:7373", "n2:7373", "n0:8484", "n1:8484", "n2:8484")
			})
			c.Settle()
			before, _ := membersOf(c, 0)
			for i := range 3 {
				c.Kill(i)
				c.Config(i).Addr = ":8484"
			}
			for i := range 3 {
				c.Restart(i)
			}
			c.Settle()
			time.Sleep(time.Minute)
			wantVoters(t, c, before)
		})
	})
	t.Run("two nodes swap their addresses", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 3, nil)
			c.Settle()
			time.Sleep(5 * time.Second)
			before, _ := membersOf(c, 0)
			l := c.Leader()
			for _, pair := range [][2]int{{(l + 1) % 3, (l + 2) % 3}, {l, (l + 1) % 3}} {
				a, b := c.Config(pair[0]), c.Config(pair[1])
				c.Kill(pair[0])
				c.Kill(pair[1])
				a.Dir, b.Dir, a.Name, b.Name = b.Dir, a.Dir, b.Name, a.Name
				c.Restart(pair[0])
				c.Restart(pair[1])
				c.Settle()
				store(t, c.Nodes[pair[0]], "k", "1")
				time.Sleep(time.Minute)
				wantVoters(t, c, before)
			}
		})
	})
	// The new leader still has a session of its previous process, and another node answers at that
	// process's address.
	t.Run("all nodes go round", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 3, nil)
			c.Settle()
			time.Sleep(5 * time.Second)
			before, _ := membersOf(c, 0)
			for i := range 3 {
				c.Kill(i)
			}
			x, y, z := c.Config(0), c.Config(1), c.Config(2)
			x.Dir, y.Dir, z.Dir, x.Name, y.Name, z.Name = y.Dir, z.Dir, x.Dir, y.Name, z.Name, x.Name
			for i := range 3 {
				c.Restart(i)
			}
			c.Settle()
			for _, n := range c.Nodes {
				store(t, n, "k", "1")
			}
			time.Sleep(time.Minute)
			wantVoters(t, c, before)
		})
	})
	t.Run("a new node at the address of a dead one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 3, nil)
			c.Settle()
			old := c.Nodes[1].Status().ID
			kept := c.Config(1).Dir
			c.Kill(1)
			c.Config(1).Dir += "-new"
			c.Restart(1)
			c.Settle()
			time.Sleep(time.Minute)
			wantVoters(t, c, living(c))
			// The dead one was elsewhere, and comes back there.
			i := c.Add(func(_ int, cfg *flotilla.Config) { cfg.Dir = kept })
			c.Settle()
			if got := c.Nodes[i].Status().ID; got != old {
				t.Errorf("its ID is %s, and was %s", got, old)
			}
			time.Sleep(time.Minute)
			wantVoters(t, c, living(c))
		})
	})
}
