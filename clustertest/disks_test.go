package clustertest_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// The leader's disk is full, fails or hangs: the leader says so and leads no more, the others write
// on, and it is back when the disk works again.
func TestDisks(t *testing.T) {
	synctest.Parallel(t)
	for _, tt := range []struct {
		name  string
		fault func(*clustertest.Disk, bool)
		says  string
	}{
		{"full", (*clustertest.Disk).Full, "no space left on device"},
		{"fails", (*clustertest.Disk).Fail, "input/output error"},
		{"hangs", func(d *clustertest.Disk, hangs bool) {
			if hangs {
				d.Slow(time.Hour)
			} else {
				d.Slow(0)
			}
		}, "the disk hangs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
				leader := c.Leader()
				a, _ := others(leader)
				tt.fault(c.Disk(leader), true)
				store(t, c.Nodes[a], "k", "1")
				eventually(t, "the node says what is wrong", func() bool { return strings.Contains(c.Nodes[leader].Status().Err, tt.says) })
				if s := c.Nodes[leader].Status(); s.Ready || s.Lease.Held || s.Leader == s.ID {
					t.Errorf("it takes part: %+v", s)
				}
				if took := store(t, c.Nodes[a], "k", "2"); took > 50*time.Millisecond {
					t.Errorf("a write of the others took %v", took)
				}
				tt.fault(c.Disk(leader), false)
				c.Settle()
				eventually(t, "the node is well", func() bool { return c.Nodes[leader].Status().Err == "" })
				wantEverywhere(t, c, "k", "2")
			})
		})
	}
}

// A slow disk delays what waits for it and nothing else.
func TestSlowDisk(t *testing.T) {
	synctest.Parallel(t)
	inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
		leader := c.Leader()
		a, b := others(leader)
		c.Disk(a).Slow(100 * time.Millisecond)
		if took := store(t, c.Nodes[leader], "k", "1"); took < 100*time.Millisecond || took > 300*time.Millisecond {
			t.Errorf("a write that the slow node must have took %v", took) // every session applies it
		}
		c.Disk(a).Slow(0)
		c.Disk(b).Slow(0)
		if took := store(t, c.Nodes[leader], "k", "2"); took > 50*time.Millisecond {
			t.Errorf("a write took %v when no disk was slow", took)
		}
	})
}

// A flipped bit is noticed when the node starts. A new node takes its place.
func TestFlippedBit(t *testing.T) {
	synctest.Parallel(t)
	for _, file := range []string{"raft-*.log", "raft.db", "node"} {
		t.Run(file, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
				store(t, c.Nodes[0], "k", "1")
				c.Kill(2)
				c.Disk(2).FlipBit(file)
				wrong := new(flotilla.ConfigError)
				if err := c.TryRestart(2); err == nil && file == "raft.db" {
					t.Log("nothing depends on that byte")
				} else if !errors.As(err, &wrong) || wrong.Field != "Dir" {
					t.Fatalf("%v; want that Dir is wrong", err)
				} else {
					c.Wipe(2)
					c.Restart(2)
				}
				c.Settle()
				wantEverywhere(t, c, "k", "1")
			})
		})
	}
}
