package flotilla_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// recovered recovers node i of a cluster, and returns the name of what was set aside.
func recovered(t *testing.T, c *clustertest.Cluster, i int, keepTail bool) string {
	t.Helper()
	aside, err := flotilla.Recover(c.Config(i).Dir, keepTail, c.Config(i).Secrets...)
	if err != nil || aside == "" {
		t.Fatalf("%q, %v", aside, err)
	}
	return aside
}

// inspect reads the directory of node i of a cluster.
func inspect(t *testing.T, c *clustertest.Cluster, i int) flotilla.Inspection {
	t.Helper()
	in, err := flotilla.Inspect(c.Config(i).Dir, c.Config(i).Secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// One survivor of three goes on with what it had. The others come back with their old directories,
// and join it.
func TestRecover(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		storeMany(t, c.Nodes[0], "k", 20)
		was := []string{c.Nodes[0].Status().ID, c.Nodes[1].Status().ID, c.Nodes[2].Status().ID}
		cluster := c.Nodes[0].Status().Cluster
		for i := range 3 {
			c.Kill(i)
		}
		if in := inspect(t, c, 0); in.ID != was[0] || in.Cluster != cluster || len(in.Records) != 20 || in.Agreed == 0 || in.Agreed > in.Index || len(in.Members) != 3 {
			t.Errorf("%+v", in)
		}
		recovered(t, c, 0, true)
		began := time.Now()
		c.Restart(0)
		c.SettleNodes(0)
		store(t, c.Nodes[0], "more", "1")
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("writes work after %v", took)
		}
		wantSetAside(t, c, 0, was[0])
		for _, i := range []int{1, 2} {
			c.Restart(i)
		}
		c.Settle()
		for _, i := range []int{1, 2} {
			wantSetAside(t, c, i, was[i])
		}
		for i := range 20 {
			wantEverywhere(t, c, fmt.Sprint("k", i), "1")
		}
		wantEverywhere(t, c, "more", "1")
		time.Sleep(30 * time.Second)
		if s := c.Nodes[0].Status(); s.Cluster != cluster || len(s.Members) != 3 {
			t.Errorf("cluster %s of %v", s.Cluster, s.Members)
		}
	})
}

// The majority was not lost but cut off. When it meets the recovered node it gives up at once. No
// write is acknowledged by both sides from then on, and what the recovered side wrote stays.
func TestRecoveredMeetsMajority(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		store(t, c.Nodes[0], "k", "1")
		was := c.Nodes[1].Status().ID
		c.Isolate(0)
		c.Kill(0)
		recovered(t, c, 0, true)
		c.Restart(0)
		c.Isolate(0)
		c.SettleNodes(0)
		c.SettleNodes(1, 2)
		store(t, c.Nodes[0], "new", "1")
		store(t, c.Nodes[1], "old", "1")
		time.Sleep(30 * time.Second) // whatever was sent before the partition is over
		c.Heal()
		met := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var err error
		for err == nil {
			time.Sleep(50 * time.Millisecond)
			err = c.Nodes[1].Storage().Store(ctx, "old", []byte("2"))
		}
		if !strings.Contains(err.Error(), "was restored or recovered since") {
			t.Errorf("the former majority stops writing because of %v", err)
		}
		if took := time.Since(met); took > 10*time.Second {
			t.Errorf("the former majority wrote for %v", took)
		}
		for _, i := range []int{1, 2} {
			wantFailure(t, c.Nodes[i], "was restored or recovered since")
			c.Kill(i)
			c.Restart(i)
		}
		c.Settle()
		wantSetAside(t, c, 1, was)
		wantEverywhere(t, c, "new", "1")
		for i, n := range c.Nodes {
			if _, err := n.Storage().Load(t.Context(), "old"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("n%d has a write of the former majority: %v", i, err)
			}
		}
	})
}

// Entries on which the cluster may not have agreed are listed, and kept or dropped as asked.
func TestRecoverTail(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, keep := range []bool{true, false} {
		t.Run(fmt.Sprintf("keep=%v", keep), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clustertest.New(t, 3, nil)
				c.Settle()
				store(t, c.Nodes[0], "agreed", "1")
				leader := c.Leader()
				c.Isolate(leader)
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				if err := c.Nodes[leader].Storage().Store(ctx, "doubtful", []byte("a secret value")); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a leader without followers writes: %v", err)
				}
				for i := range 3 {
					c.Kill(i)
				}
				in := inspect(t, c, leader)
				if !slices.ContainsFunc(in.Tail, func(e flotilla.TailEntry) bool { return e.What == "stores doubtful" && e.Index > in.Agreed }) {
					t.Errorf("behind entry %d the tail is %+v", in.Agreed, in.Tail)
				}
				if strings.Contains(fmt.Sprint(in), "a secret value") {
					t.Error("a value is shown")
				}
				recovered(t, c, leader, keep)
				c.Heal()
				c.Restart(leader)
				c.SettleNodes(leader)
				wantEverywhere(t, c, "agreed", "1")
				_, err := c.Nodes[leader].Storage().Load(t.Context(), "doubtful")
				if keep && err != nil || !keep && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the doubtful write: %v", err)
				}
			})
		})
	}
}

// A recovery that is interrupted keeps the node from starting, and is completed by another one.
// What was there before stays, and no restore replaces it.
func TestRecoverInterrupted(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	const aside = "set-aside-20000101-000000.000"
	for _, test := range []struct {
		name   string
		before func(t *testing.T, c *clustertest.Cluster) // the interrupted attempt
	}{
		{"nothing is set aside yet", func(t *testing.T, c *clustertest.Cluster) {
			markInterrupted(t, c.Config(0).Dir, func(id *membership.Identity) { id.Restoring, id.Kept = true, aside })
		}},
		{"a part is set aside", func(t *testing.T, c *clustertest.Cluster) {
			dir := c.Config(0).Dir
			markInterrupted(t, dir, func(id *membership.Identity) { id.Restoring, id.Kept = true, aside })
			if err := os.Rename(filepath.Join(dir, "snapshots"), filepath.Join(dir, aside, "snapshots")); err != nil {
				t.Fatal(err)
			}
		}},
		{"the state is set aside", func(t *testing.T, c *clustertest.Cluster) {
			begin(t, c, aside)
		}},
		{"a part of it is planted", func(t *testing.T, c *clustertest.Cluster) {
			begin(t, c, aside)
			dir, err := replica.LockDir(c.Config(0).Dir)
			if err != nil {
				t.Fatal(err)
			}
			d, err := replica.OpenDisk(dir, replica.DiskOptions{Create: true, Log: slog.New(slog.DiscardHandler)})
			if err == nil {
				err = d.Close()
			}
			if err = errors.Join(err, dir.Close()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clustertest.New(t, 1, nil)
				c.Settle()
				store(t, c.Nodes[0], "k", "1")
				sealed, _ := backup(t, c.Nodes[0])
				c.Stop(0)
				whole := copyDir(t, c.Config(0).Dir)
				done := c.Config(0).Dir
				made := filepath.Join(done, recovered(t, c, 0, true), "recovered.backup")
				// The same again, up to the interruption.
				secrets := c.Config(0).Secrets
				c.Config(0).Dir = whole
				copyFile(t, made, filepath.Join(whole, aside, "recovered.backup"))
				copyFile(t, filepath.Join(whole, "node"), filepath.Join(whole, aside, "node"))
				test.before(t, c)
				wantConfigError(t, *c.Config(0), "Dir", "was interrupted; run it again (flotilla recover -yes)")
				if in, err := flotilla.Inspect(whole, secrets...); !in.Interrupted || err == nil || !strings.Contains(err.Error(), "was interrupted; run that again") {
					t.Errorf("a look says %v: %v", in.Interrupted, err)
				}
				if _, err := flotilla.Restore(whole, bytes.NewReader(sealed), secrets...); err == nil || !strings.Contains(err.Error(), "a recovery of "+whole+" was interrupted") {
					t.Errorf("a restore says %v", err)
				}
				newer := flotilla.NewSecret() // the interrupted attempt had another one
				c.Config(0).Secrets = []flotilla.Secret{newer, secrets[0]}
				if got := recovered(t, c, 0, true); got != aside {
					t.Errorf("%q is set aside", got)
				}
				c.Config(0).Secrets = []flotilla.Secret{newer}
				c.Restart(0)
				c.Settle()
				wantEverywhere(t, c, "k", "1")
				kept := dirNames(filepath.Join(whole, aside))
				for _, name := range []string{"node", "raft.db", "snapshots", "recovered.backup"} {
					if !slices.Contains(kept, name) {
						t.Errorf("%s is not among what was set aside, %q", name, kept)
					}
				}
			})
		})
	}
}

// begin does the first part of a recovery.
func begin(t *testing.T, c *clustertest.Cluster, aside string) {
	t.Helper()
	dir, err := replica.LockDir(c.Config(0).Dir)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := seal.ParseSecret(c.Config(0).Secrets[0].Encode())
	if err == nil {
		_, err = membership.BeginRecovery(dir, aside, []seal.Secret{secret}, "cluster", 1<<32)
	}
	if err = errors.Join(err, dir.Close()); err != nil {
		t.Fatal(err)
	}
}

// What is no survivor's directory is not touched.
func TestRecoverRefuses(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		sealed, _ := backup(t, c.Nodes[0])
		refused := func(want, dir string, secrets ...flotilla.Secret) {
			t.Helper()
			before := dirNames(dir)
			if _, err := flotilla.Recover(dir, true, secrets...); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v; want one with %q", err, want)
			}
			if diff := cmp.Diff(before, dirNames(dir)); diff != "" {
				t.Errorf("the directory has changed:\n%s", diff)
			}
		}
		secrets, dir := c.Config(0).Secrets, c.Config(0).Dir
		refused("is in use by a node; stop it first", dir, secrets...)
		c.Stop(0)
		refused("no secret is given", dir)
		refused("it is sealed with the secret", dir, flotilla.NewSecret())
		refused("no such file or directory", filepath.Join(dir, "none"), secrets...)
		refused("it is not a node's data directory", t.TempDir(), secrets...)
		half := filepath.Join(t.TempDir(), "half")
		restore(t, half, sealed, secrets...)
		markInterrupted(t, half, func(id *membership.Identity) { id.Restoring, id.Member = true, false })
		refused("a restore into it was interrupted, and not a recovery", half, secrets...)
		restore(t, half, sealed, secrets...) // completes it
	})
}
