package clustertest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A leader that stands still is replaced, and what it held goes to another. When it goes on it
// knows.
func TestPause(t *testing.T) {
	synctest.Parallel(t)
	inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
		leader := c.Leader()
		a, _ := others(leader)
		got, _ := hold(t, c.Nodes[leader], "r")
		tenure := <-got
		next, _ := hold(t, c.Nodes[a], "r")
		time.Sleep(time.Second)
		c.Pause(leader)
		if took := store(t, c.Nodes[a], "k", "1"); took > time.Second {
			t.Errorf("the first write after the pause began took %v", took)
		}
		later := <-next
		if later.Fence() <= tenure.Fence() || time.Now().Before(tenure.Deadline()) {
			t.Errorf("the role is held with fence %d after %d, %v before the deadline of the former tenure",
				later.Fence(), tenure.Fence(), time.Until(tenure.Deadline()))
		}
		time.Sleep(10 * time.Second)
		c.Resume(leader)
		if s := c.Nodes[leader].Status(); s.Lease.Held || s.Ready {
			t.Errorf("it has a lease when it wakes: %+v", s.Lease)
		}
		c.Settle()
		if now := c.Leader(); now == leader {
			t.Errorf("n%d leads again", now)
		}
		wantEverywhere(t, c, "k", "1")
	})
}

// A short pause costs nothing.
func TestShortPause(t *testing.T) {
	synctest.Parallel(t)
	inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
		leader, term := c.Leader(), c.Nodes[c.Leader()].Status().Term
		c.Pause(leader)
		time.Sleep(100 * time.Millisecond)
		c.Resume(leader)
		store(t, c.Nodes[leader], "k", "1")
		if s := c.Nodes[leader].Status(); c.Leader() != leader || s.Term != term {
			t.Errorf("n%d leads in term %d, and n%d did in term %d", c.Leader(), s.Term, leader, term)
		}
	})
}

// A node dies at each step of a write to its log, with and without what was not synced. Nothing is
// lost that was acknowledged, and it is a member again.
func TestKillAtStep(t *testing.T) {
	synctest.Parallel(t)
	for _, step := range []clustertest.Step{clustertest.BeforeWrite, clustertest.TornWrite, clustertest.BeforeSync, clustertest.AfterSync} {
		for _, lose := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, lose %v", step, lose), func(t *testing.T) {
				inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
					i := c.Leader()
					a, _ := others(i)
					store(t, c.Nodes[a], "k", "1")
					before := c.Nodes[i].Status()
					if lose {
						c.Disk(i).LoseUnsynced()
					}
					c.KillAt(i, step)
					store(t, c.Nodes[a], "k", "2")
					c.AwaitKill(i)
					store(t, c.Nodes[a], "k", "3")
					c.Restart(i)
					c.Settle()
					if after := c.Nodes[i].Status(); after.ID != before.ID {
						t.Errorf("it is back as %s, and was %s", after.ID, before.ID)
					}
					wantEverywhere(t, c, "k", "3")
				})
			})
		}
	}
}

// What was written and not synced is on the disk after a kill, and not after a loss of power. A
// cluster of one shows it: nobody else has the entry.
func TestLoseUnsynced(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Parallel(t)
	for _, tt := range []struct {
		step clustertest.Step
		lose bool
		want bool // it is there
	}{
		{clustertest.BeforeWrite, false, false},
		{clustertest.TornWrite, false, false},
		{clustertest.BeforeSync, false, true},
		{clustertest.BeforeSync, true, false},
		{clustertest.AfterSync, true, true},
	} {
		t.Run(fmt.Sprintf("%s, lose %v", tt.step, tt.lose), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clustertest.New(t, 1, nil)
				c.Settle()
				store(t, c.Nodes[0], "k", "old")
				time.Sleep(10 * time.Second) // nothing else is written
				if tt.lose {
					c.Disk(0).LoseUnsynced()
				}
				c.KillAt(0, tt.step)
				if err := c.Nodes[0].Storage().Store(t.Context(), "k", []byte("new")); !errors.Is(err, flotilla.ErrClosed) {
					t.Errorf("the write ended with %v", err)
				}
				c.AwaitKill(0)
				c.Restart(0)
				c.Settle()
				want := "old"
				if tt.want {
					want = "new"
				}
				wantEverywhere(t, c, "k", want)
			})
		})
	}
}

// A program dies between two of its own steps. Another node takes its work over.
func TestKillAtStepOfProgram(t *testing.T) {
	synctest.Parallel(t)
	inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
		job := func(i int) error {
			return c.Nodes[i].Hold(t.Context(), flotilla.Role{Name: "job"}, func(ctx context.Context, _ flotilla.Tenure) error {
				s := c.Nodes[i].Storage()
				if err := s.Store(ctx, "begun", []byte("x")); err != nil {
					return err
				}
				if err := c.Step(i, "between begun and done"); err != nil {
					return err
				}
				return s.Store(ctx, "done", []byte(fmt.Sprint(i)))
			})
		}
		c.KillAt(0, "between begun and done")
		if err := job(0); !errors.Is(err, flotilla.ErrClosed) {
			t.Errorf("the first job ended with %v", err)
		}
		c.AwaitKill(0)
		wantEverywhere(t, c, "begun", "x")
		if c.Nodes[1].Storage().Exists(t.Context(), "done") {
			t.Error("the job was done after its process had died")
		}
		if err := job(1); err != nil {
			t.Error(err)
		}
		wantEverywhere(t, c, "done", "1")
	})
}

// The power of all machines fails at the same moment, in the middle of writes. All are back with
// all that was acknowledged.
func TestKillAll(t *testing.T) {
	synctest.Parallel(t)
	inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
		acknowledged := make(chan string, 1000)
		for i := range 3 {
			c.Disk(i).Slow(5 * time.Millisecond) // so that there is something that is not synced
			go func() {
				for k := 0; ; k++ {
					key := fmt.Sprintf("%d/%d", i, k)
					if c.Nodes[i].Storage().Store(t.Context(), key, []byte(key)) != nil {
						return
					}
					acknowledged <- key
				}
			}()
		}
		time.Sleep(500 * time.Millisecond)
		for i := range 3 {
			c.Disk(i).LoseUnsynced()
		}
		c.KillAll()
		if live := c.Live(); len(live) != 0 {
			t.Fatalf("%v run", live)
		}
		synctest.Wait()
		close(acknowledged)
		for i := range 3 {
			c.Disk(i).Slow(0)
			c.Restart(i)
		}
		c.Settle()
		n := 0
		for key := range acknowledged {
			n++
			wantEverywhere(t, c, key, key)
		}
		if n < 20 {
			t.Errorf("only %d writes were acknowledged: this shows little", n)
		}
	})
}

// A node whose directory is empty comes back as a new member.
func TestWipe(t *testing.T) {
	synctest.Parallel(t)
	inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
		store(t, c.Nodes[0], "k", "1")
		before := c.Nodes[2].Status().ID
		c.Kill(2)
		c.Wipe(2)
		c.Restart(2)
		c.Settle()
		if after := c.Nodes[2].Status().ID; after == before {
			t.Errorf("it is %s as before", after)
		}
		wantEverywhere(t, c, "k", "1")
	})
}

// The test ends while a node stands still in a write, another one has a disk that hangs, and the
// third is to die at a step that never comes.
func TestEndWithFaults(t *testing.T) {
	synctest.Parallel(t)
	inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		c.Disk(1).Slow(time.Hour)
		c.Disk(0).Slow(100 * time.Millisecond)
		done := make(chan error, 1)
		go func() { done <- c.Nodes[2].Storage().Store(ctx, "k", nil) }()
		time.Sleep(10 * time.Millisecond)
		c.Pause(0)
		c.KillAt(2, "never")
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// A node is killed in a write that its disk holds back for long, and started again at once.
func TestKillWhileDiskHangs(t *testing.T) {
	synctest.Parallel(t)
	for _, hang := range []struct {
		name string
		on   func(*clustertest.Cluster, int)
	}{
		{"slow", func(c *clustertest.Cluster, i int) { c.Disk(i).Slow(time.Hour) }},
		{"paused", (*clustertest.Cluster).Pause},
	} {
		t.Run(hang.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *clustertest.Cluster) {
				i := c.Leader()
				a, _ := others(i)
				hang.on(c, i)
				go c.Nodes[i].Storage().Store(t.Context(), "x", nil)
				store(t, c.Nodes[a], "k", "1")
				time.Sleep(5 * time.Second)
				c.Kill(i)
				c.Disk(i).Slow(0)
				c.Restart(i)
				c.Settle()
				wantEverywhere(t, c, "k", "1")
			})
		})
	}
}

// Faults also work outside of a bubble, in real time.
func TestFaultsInRealTime(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	c := clustertest.New(t, 3, nil)
	c.Settle()
	leader := c.Leader()
	a, b := others(leader)
	c.Link(a, b).Delay(2 * time.Millisecond)
	c.Disk(b).Slow(time.Millisecond)
	c.Pause(leader)
	store(t, c.Nodes[a], "k", "1") // by another leader
	c.Resume(leader)
	c.KillAt(leader, clustertest.BeforeSync)
	store(t, c.Nodes[a], "k", "2")
	c.AwaitKill(leader)
	c.Restart(leader)
	c.Settle()
	wantEverywhere(t, c, "k", "2")
}
