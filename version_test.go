package flotilla_test

import (
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// wantVersion compares the cluster version on every live node.
func wantVersion(t *testing.T, c *clustertest.Cluster, when string, want uint64) {
	t.Helper()
	for _, i := range c.Live() {
		if got := c.Nodes[i].Status().Version; got != want {
			t.Errorf("%s, n%d has cluster version %d, want %d", when, i, got, want)
		}
	}
}

// olderProgram has a node run the program before. Its leases are long, because tests go through
// hours.
func olderProgram(_ int, cfg *flotilla.Config) {
	cfg.Timing = flotilla.WAN
	flotilla.SetSupports(cfg, 1)
}

// replace restarts a node with a program that supports that cluster version at most. 0: the newest.
func replace(c *clustertest.Cluster, i int, supports uint64) {
	c.Stop(i)
	start(c, i, supports)
}

// start starts a node that was stopped, with such a program.
func start(c *clustertest.Cluster, i int, supports uint64) {
	flotilla.SetSupports(c.Config(i), supports)
	c.Restart(i)
	c.Settle()
}

// A new cluster has the newest version within a moment.
func TestNewClusterHasTheNewestVersion(t *testing.T) {
	synctest.Parallel(t)
	for _, nodes := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, nodes, nil)
			c.Settle()
			time.Sleep(time.Second)
			wantVersion(t, c, "a second after all are ready", state.Version)
		})
	}
}

// An older program holds the version back for as long as it is there, and can come back for an hour
// after it was replaced everywhere.
func TestVersionWaitsForAnHour(t *testing.T) {
	flotilla.SkipShort(t)
	flotilla.SkipRace(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, olderProgram)
		c.Settle()
		replace(c, 0, 0)
		replace(c, 1, 0)
		time.Sleep(time.Duration(flotilla.Cases(t, 61, 5)) * time.Minute)
		wantVersion(t, c, "while n2 is an older program", 1)
		replace(c, 2, 0)
		time.Sleep(30 * time.Minute)
		replace(c, 1, 1)
		time.Sleep(30 * time.Minute)
		wantVersion(t, c, "when n1 is an older program again", 1)
		replace(c, 1, 0)
		time.Sleep(59 * time.Minute)
		wantVersion(t, c, "before the hour is over", 1)
		time.Sleep(2 * time.Minute)
		wantVersion(t, c, "after the hour", state.Version)
	})
}

// A member that is away holds the version back: nobody knows with which program it comes back.
func TestVersionWaitsForAllMembers(t *testing.T) {
	flotilla.OnlyLong(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, olderProgram)
		c.Settle()
		for i := range c.Nodes {
			replace(c, i, 0)
		}
		c.Stop(2)
		time.Sleep(2 * time.Hour)
		wantVersion(t, c, "while n2 is away", 1)
		c.Restart(2)
		c.Settle()
		time.Sleep(time.Hour + time.Minute)
		wantVersion(t, c, "an hour after n2 has come back", state.Version)
	})
}

// A node whose program does not support the cluster version is refused, with what to do about it.
// So is a new node.
func TestOlderProgramIsRefused(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		time.Sleep(time.Second)
		wantVersion(t, c, "at first", state.Version)
		c.Stop(1)
		flotilla.SetSupports(c.Config(1), 1)
		c.Restart(1)
		joiner := c.Add(func(_ int, cfg *flotilla.Config) { flotilla.SetSupports(cfg, 1) })
		time.Sleep(5 * time.Second)
		for _, i := range []int{1, joiner} {
			s := c.Nodes[i].Status()
			if want := "the cluster has version 2, and its program supports 1 at most; upgrade the program of " + s.Name; s.Ready || !strings.Contains(s.Err, want) {
				t.Errorf("n%d is ready: %v, with the error %q; want %q in it", i, s.Ready, s.Err, want)
			}
		}
		for _, i := range []int{0, 2} {
			if s := c.Nodes[i].Status(); !s.Ready || len(s.Members) != 3 {
				t.Errorf("n%d is ready: %v, in a cluster of %d", i, s.Ready, len(s.Members))
			}
		}
		flotilla.SetSupports(c.Config(1), 0)
		c.Kill(1)
		c.Restart(1)
		c.Kill(joiner)
		c.Settle()
	})
}

// Each node knows what the others support, and the leader since when.
func TestStatusNamesWhatIsSupported(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(i int, cfg *flotilla.Config) {
			if i == 2 {
				flotilla.SetSupports(cfg, 1)
			}
		})
		c.Settle()
		leader := c.Leader()
		if leader == 2 {
			c.Stop(2)
			c.Restart(2)
			c.Settle()
			leader = c.Leader()
		}
		time.Sleep(time.Minute)
		for i, n := range c.Nodes {
			s := n.Status()
			if s.Version != 1 {
				t.Errorf("n%d has cluster version %d", i, s.Version)
			}
			for _, m := range s.Members {
				supports := uint64(state.Version)
				if m.Name == "n2" {
					supports = 1
				}
				if m.Supports != supports || m.Since.IsZero() != (i != leader || m.Name == "n2") {
					t.Errorf("n%d says that %s supports %d since %v; n%d leads", i, m.Name, m.Supports, m.Since, leader)
				}
			}
		}
	})
}

// An operator need not wait for the hour, and learns which nodes are in the way.
func TestOperatorRaisesTheVersion(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { flotilla.SetSupports(cfg, 1) })
		c.Settle()
		client := office(t, c, 0)
		ask := func(when string, refused bool, part string) {
			t.Helper()
			a, err := client.Upgrade(t.Context())
			wantAnswer(t, when, a, err, refused, part)
		}
		ask("before the upgrade", false, "the cluster has version 1")
		replace(c, 0, 0)
		replace(c, 2, 0)
		// An older leader does not know the request, and one that knows it sees the same.
		ask("while n1 is older", true, "the cluster has version 1; version 2 waits for n1, which supports 1. Upgrade the program")
		c.Stop(1)
		c.Settle()
		time.Sleep(time.Minute)
		ask("while n1 is away", true, "version 2 waits for n1, which is away. Upgrade the program")
		start(c, 1, 0)
		wantVersion(t, c, "before anybody asks", 1)
		ask("when all are there", false, "the cluster has version 2")
		wantVersion(t, c, "when it was raised", 2)
		ask("again", false, "the cluster has version 2")
	})
}

// A leader asks a member whose greeting it has missed what that supports.
func TestLeaderAsksWhatIsSupported(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { flotilla.SetSupports(cfg, 1) })
		c.Settle()
		client := office(t, c, 0)
		for i := range c.Nodes {
			replace(c, i, 0)
		}
		lead := func(i int) {
			t.Helper()
			leads := c.Nodes[c.Leader()].Status().ID
			a, err := client.Transfer(t.Context(), remote.TransferRequest{From: leads, To: c.Nodes[i].Status().ID})
			wantAnswer(t, "the transfer", a, err, false, "leads")
			c.Settle()
		}
		lead(1)
		c.Stop(2)
		c.Block(0, 2)
		c.Block(2, 0)
		c.Restart(2)
		time.Sleep(10 * time.Second)
		if s := c.Nodes[0].Status(); !s.Members[2].Present || s.Members[2].Supports != 0 {
			t.Errorf("n0 knows n2, so this shows nothing: %+v", s.Members[2])
		}
		c.Heal()
		lead(0)
		time.Sleep(2 * time.Second)
		if s := c.Nodes[0].Status(); s.Members[2].Supports != state.Version {
			t.Errorf("n0 leads, and says of n2: %+v", s.Members[2])
		}
	})
}
