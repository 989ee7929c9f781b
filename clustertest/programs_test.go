package clustertest_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// servesOnly is a program that keeps its node to itself.
func servesOnly(ctx context.Context, cfg flotilla.Config) error {
	return flotilla.Serve(ctx, cfg, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "api.test")
}

// Faults reach the nodes of programs that open them by themselves. A fault ends, and all serve
// again.
func TestFaultsOfPrograms(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	for _, tt := range []struct {
		name  string
		fault func(t *testing.T, c *clustertest.Cluster, leader, other int)
		trace string // a line of it
	}{
		{"killed at a step of the log", func(t *testing.T, c *clustertest.Cluster, leader, other int) {
			c.KillAt(leader, clustertest.BeforeSync)
			store(t, c.Nodes[other], "k", "1")
			c.AwaitKill(leader)
			get(t, c.Client(), "https://api.test/") // of the others
			c.Restart(leader)
		}, "fault: killed before the log is synced"},
		{"killed at a step of the program", func(t *testing.T, c *clustertest.Cluster, leader, other int) {
			c.KillAt(leader, "here")
			if err := c.Step(leader, "here"); !errors.Is(err, flotilla.ErrClosed) {
				t.Errorf("the step returns %v", err)
			}
			c.AwaitKill(leader)
			store(t, c.Nodes[other], "k", "1")
			c.Restart(leader)
		}, "fault: killed here"},
		{"all killed", func(t *testing.T, c *clustertest.Cluster, leader, other int) {
			store(t, c.Nodes[other], "k", "1")
			c.KillAll()
			for i := range c.Nodes {
				c.Restart(i)
			}
		}, "fault: all are killed"},
		{"stands still", func(t *testing.T, c *clustertest.Cluster, leader, other int) {
			c.Pause(leader)
			store(t, c.Nodes[other], "k", "1")
			time.Sleep(5 * time.Second)
			c.Resume(leader)
		}, "the lease has expired"},
		{"a full disk", func(t *testing.T, c *clustertest.Cluster, leader, other int) {
			c.Disk(leader).Full(true)
			store(t, c.Nodes[other], "k", "1")
			if now := c.Leader(); now == leader {
				t.Errorf("n%d still leads", now)
			}
			c.Disk(leader).Full(false)
		}, "no space left on device"},
		{"a wall clock that jumps", func(t *testing.T, c *clustertest.Cluster, leader, other int) {
			store(t, c.Nodes[other], "k", "1")
			c.Clock(leader).Jump(3 * time.Hour)
			eventually(t, "the node says that its clock is wrong", func() bool { return strings.Contains(c.Nodes[leader].Status().Clock, "3h0m0s ahead") })
			c.Clock(leader).Jump(-3 * time.Hour)
			c.Stop(leader)
			c.Clock(leader).Rate(1.01)
			c.Restart(leader)
		}, "its clock runs at 1.01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clustertest.Run(t, 3, servesOnly)
				c.Settle()
				leader := c.Leader()
				other, _ := others(leader)
				tt.fault(t, c, leader, other)
				c.Settle()
				wantEverywhere(t, c, "k", "1")
				for i := range c.Nodes {
					get(t, c.ClientOf(i), "https://api.test/")
				}
				if !strings.Contains(c.Trace(), tt.trace) {
					t.Errorf("%q is not in the trace:\n%s", tt.trace, c.Trace())
				}
			})
		})
	}
}

// A program whose node does not start says so to TryRestart, and the test goes on.
func TestTryRestartOfProgram(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		refuses := errors.New("no")
		refusing := false // while no program runs
		c := clustertest.Run(t, 1, func(ctx context.Context, cfg flotilla.Config) error {
			if refusing {
				return refuses
			}
			return servesOnly(ctx, cfg)
		})
		c.Settle()
		c.Stop(0)
		refusing = true
		if err := c.TryRestart(0); !errors.Is(err, refuses) {
			t.Errorf("it started: %v", err)
		}
		if live := c.Live(); len(live) != 0 {
			t.Errorf("%v run", live)
		}
		refusing = false
		c.Restart(0)
		c.Settle()
	})
}
