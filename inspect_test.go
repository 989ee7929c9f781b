package flotilla_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testfiles"
)

func TestInspect(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		steady(t, c, 3)
		store(t, c.Nodes[0], "a/b", "1")
		status := c.Nodes[0].Status()
		dir, secret := c.Config(0).Dir, c.Config(0).Secrets[0]

		got, err := flotilla.Inspect(dir, secret)
		if err != nil || !got.InUse || got.ID != status.ID || got.Name != "n0" || got.Cluster != status.Cluster || got.Starts != 0 || got.Last != 0 {
			t.Errorf("while the node runs: %+v, %v", got, err)
		}
		c.Stop(0) // which takes a snapshot
		c.Restart(0)
		c.Settle()
		got, err = flotilla.Inspect(dir, secret)
		if err != nil || !got.InUse || got.Snapshots != 1 || got.Index == 0 || got.Index != got.SnapshotIndex || !cmp.Equal(got.Records, []string{"a/b"}) || got.Last != 0 {
			t.Errorf("while the node runs, with a snapshot: %+v, %v", got, err)
		}
	})
}

// The reader of a large directory is told how much of it has been read.
func TestInspectProgress(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		storeMany(t, c.Nodes[0], "k", 20)
		c.Stop(0) // which takes a snapshot
		c.Restart(0)
		c.Settle()
		storeMany(t, c.Nodes[0], "l", 20)
		c.Kill(0)
		type step struct{ Done, Total int64 }
		steps := make(map[string][]step)
		var got flotilla.Inspection
		err := got.Read(c.Config(0).Dir, func(what string, done, total int64) {
			steps[what] = append(steps[what], step{done, total})
		}, c.Config(0).Secrets...)
		if err != nil || len(got.Records) != 40 {
			t.Fatalf("%d records, %v", len(got.Records), err)
		}
		for what, want := range map[string]int64{"snapshot": got.SnapshotBytes, "log": int64(got.Last - got.SnapshotIndex)} {
			all := steps[what]
			if n := len(all); n == 0 || all[n-1] != (step{want, want}) {
				t.Errorf("of the %s, of %d: %v", what, want, all)
			}
			for i := 1; i < len(all); i++ {
				if all[i].Done < all[i-1].Done || all[i].Done > all[i].Total {
					t.Errorf("of the %s: %v after %v", what, all[i], all[i-1])
				}
			}
		}
		if len(steps) != 2 || len(steps["log"]) < 20 {
			t.Errorf("it says %v", steps)
		}
	})
}

// What a directory shows is what its node knew, from snapshot and log; and nothing in it is
// changed.
func TestInspectStoppedNode(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for name, end := range map[string]func(c *clustertest.Cluster){
		"killed":  func(c *clustertest.Cluster) { c.Kill(0) },
		"stopped": func(c *clustertest.Cluster) { c.Stop(0) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clustertest.New(t, 3, nil)
				c.Settle()
				steady(t, c, 3)
				store(t, c.Nodes[0], "a/b", "1")
				store(t, c.Nodes[0], "c", "22")
				status := c.Nodes[0].Status()
				dir, secret := c.Config(0).Dir, c.Config(0).Secrets[0]
				end(c)
				before := testfiles.Read(t, dir)
				got, err := flotilla.Inspect(dir, flotilla.NewSecret(), secret)
				if err != nil {
					t.Fatal(err)
				}
				if got.InUse || got.Term < status.Term || got.Last < status.Index || got.Index < status.Index || got.LogBytes == 0 || (name == "stopped") != (got.Snapshots == 1) {
					t.Errorf("term %d, last %d, index %d, snapshots %d; the status was %d, %d", got.Term, got.Last, got.Index, got.Snapshots, status.Term, status.Index)
				}
				if name == "stopped" && (got.SnapshotIndex == 0 || got.SnapshotTime.IsZero() || got.SnapshotBytes == 0) {
					t.Errorf("the snapshot: %+v", got)
				}
				if diff := cmp.Diff([]string{"a/b", "c"}, got.Records); diff != "" || got.Bytes < 7 {
					t.Errorf("%d bytes; records (-want +got):\n%s", got.Bytes, diff)
				}
				if n := len(got.Members); n != 3 || !got.Members[2].Voter || got.Members[2].Name != "n2" {
					t.Errorf("members %+v", got.Members)
				}
				if diff := cmp.Diff(before, testfiles.Read(t, dir)); diff != "" {
					t.Errorf("something has changed (-before +after):\n%s", diff)
				}

				_, err = flotilla.Inspect(dir, flotilla.NewSecret())
				if err == nil || !strings.Contains(err.Error(), "it is sealed with the secret ") {
					t.Errorf("another secret: %v", err)
				}
				if _, err = flotilla.Inspect(dir); err == nil {
					t.Error("no secret: no error")
				}
				if err := os.Truncate(filepath.Join(dir, "raft.db"), 100); err != nil {
					t.Fatal(err)
				}
				got, err = flotilla.Inspect(dir, secret)
				if err == nil || !strings.Contains(err.Error(), "raft.db is damaged") || got.ID != status.ID {
					t.Errorf("a damaged log: %+v, %v", got, err)
				}
			})
		})
	}
}

func TestInspectNothing(t *testing.T) {
	if _, err := flotilla.Inspect(filepath.Join(t.TempDir(), "none"), flotilla.NewSecret()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := flotilla.Inspect(t.TempDir(), flotilla.NewSecret()); err == nil || !strings.Contains(err.Error(), "it is not a node's data directory") {
		t.Errorf("an empty directory: %v", err)
	}
}
