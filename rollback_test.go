package flotilla_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// copyDir copies a node's directory as it lies there, also under a node that runs.
func copyDir(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// restoreDir puts a copy in the place of a node's directory.
func restoreDir(t *testing.T, from, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// stopAlone stops a node as an operator does, though nobody may be there whom it could hand over
// to.
func stopAlone(c *clustertest.Cluster, i int) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = c.Nodes[i].Shutdown(ctx)
	c.Kill(i)
}

// storeMany stores records that are acknowledged.
func storeMany(t *testing.T, n *flotilla.Node, prefix string, count int) {
	t.Helper()
	for i := range count {
		store(t, n, fmt.Sprint(prefix, i), "1")
	}
}

// A voter's directory is restored from an older copy while the only node that knows better is down.
// What was acknowledged meanwhile is lost to the two others. The node that has it stops, loudly.
func TestRolledBackWhileNobodyKnows(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, test := range flotilla.Some(t, []struct {
		name string
		copy string // "before": before the leader of the lost writes was elected; "after"
		end  func(*clustertest.Cluster, int)
		then int // writes of the two others
	}{
		{"killed", "after", (*clustertest.Cluster).Kill, 5},
		{"killed, and more is written than was lost", "after", (*clustertest.Cluster).Kill, 80},
		{"stopped", "after", stopAlone, 5},
		{"the same term twice", "before", (*clustertest.Cluster).Kill, 5},
		{"the same term twice, and more is written", "before", (*clustertest.Cluster).Kill, 80},
	}, 3) {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clustertest.New(t, 3, nil)
				c.Settle()
				time.Sleep(5 * time.Second)
				knows, away, back := 0, 1, 2
				var older string
				if test.copy == "before" {
					older = copyDir(t, c.Config(back).Dir)
				}
				c.Kill(away)
				if test.copy == "before" { // another term, which only these two know
					c.Kill(back)
					c.Kill(knows)
					c.Restart(back)
					c.Restart(knows)
				}
				c.Settle()
				if test.copy == "after" {
					older = copyDir(t, c.Config(back).Dir)
				}
				storeMany(t, c.Nodes[knows], "lost", 50)
				test.end(c, back)
				test.end(c, knows)
				restoreDir(t, older, c.Config(back).Dir)
				c.Restart(away)
				c.Restart(back)
				c.Settle()
				storeMany(t, c.Nodes[away], "later", test.then)
				c.Restart(knows)
				wantFailure(t, c.Nodes[knows], "has applied entries that its cluster does not have")
				time.Sleep(10 * time.Second)
				wantReady(t, []*flotilla.Node{c.Nodes[away], c.Nodes[back]})
				wantEqual(t, c.Nodes[away], c.Nodes[back])
				c.Kill(knows) // again, it says the same
				c.Restart(knows)
				wantFailure(t, c.Nodes[knows], "has applied entries that its cluster does not have")
			})
		})
	}
}

// The same, but the node that knows is there first: nothing is lost.
func TestRolledBackAndRestored(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clustertest.New(t, 3, nil)
				c.Settle()
				time.Sleep(5 * time.Second)
				c.Kill(1)
				c.Settle()
				older := copyDir(t, c.Config(2).Dir)
				storeMany(t, c.Nodes[0], "k", 50)
				c.Kill(2)
				c.Kill(0)
				restoreDir(t, older, c.Config(2).Dir)
				for _, i := range order {
					c.Restart(i)
				}
				c.Settle()
				for i := range 50 {
					wantEverywhere(t, c, fmt.Sprint("k", i), "1")
				}
			})
		})
	}
}

// wantEqual checks that two nodes have the same records.
func wantEqual(t *testing.T, a, b *flotilla.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	list := func(n *flotilla.Node) string {
		keys, err := n.Storage().List(ctx, "", true)
		if err != nil {
			t.Error(err)
		}
		return strings.Join(keys, " ")
	}
	if x, y := list(a), list(b); x != y {
		t.Errorf("the states differ:\n%s\n%s", x, y)
	}
}

// A directory that is restored from an older copy in a healthy cluster is noticed at once, whatever
// the others know it by: its state is set aside, and the node joins as a new one. Nothing is lost,
// and nobody reads what is old.
func TestRolledBackDirectory(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, test := range flotilla.Some(t, []struct {
		name          string
		earlier, lead bool          // the copy is of an earlier process; the node leads when it is killed
		pause         time.Duration // before it is back
		addr          string
	}{
		{"of an earlier process", true, false, 0, ":7373"},
		{"of an earlier process, later, at another address", true, false, 5 * time.Second, ":8484"},
		{"of the same process", false, false, 0, ":7373"},
		{"of the same process, later", false, false, 5 * time.Second, ":7373"},
		{"of the same process, at another address", false, false, 0, ":8484"},
		{"of the same process, which led", false, true, 0, ":7373"},
		{"of the same process, which led, later, at another address", false, true, 5 * time.Second, ":8484"},
	}, 2) {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				said := new(lines)
				c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { cfg.Logger = said.logger(t) })
				c.Settle()
				time.Sleep(5 * time.Second)
				v := c.Leader()
				if !test.lead {
					v = (v + 1) % 3
				}
				var older string
				if test.earlier {
					c.Kill(v)
					older = copyDir(t, c.Config(v).Dir)
					c.Restart(v)
					c.Settle()
				} else {
					older = copyDir(t, c.Config(v).Dir)
				}
				id, other := c.Nodes[v].Status().ID, c.Nodes[(v+1)%3]
				storeMany(t, other, "k", 40)
				c.Kill(v)
				time.Sleep(test.pause)
				restoreDir(t, older, c.Config(v).Dir)
				c.Config(v).Addr = test.addr
				c.Restart(v)
				storeMany(t, other, "later", 5)
				c.Settle()
				s := c.Nodes[v].Status()
				if s.ID == id || s.SetAside == "" {
					t.Fatalf("the node goes on as the one that it was: %+v", s)
				}
				for i := range 40 {
					wantEverywhere(t, c, fmt.Sprint("k", i), "1")
				}
				info, err := os.Stat(filepath.Join(c.Config(v).Dir, s.SetAside))
				if err != nil || info.Mode().Perm() != 0o700 {
					t.Errorf("the older state: %v, %v", info, err)
				}
				if kept := files(t, filepath.Join(c.Config(v).Dir, s.SetAside)); !slices.Contains(kept, "raft.db") || !slices.Contains(kept, "node") {
					t.Errorf("what was set aside is %v", kept)
				}
				time.Sleep(30 * time.Second)
				c.Settle()
				for _, text := range []string{"this node cannot go on with its data directory", "a process of a node is refused", "it cannot come back"} {
					if !said.have(text) {
						t.Errorf("nobody has said %q", text)
					}
				}
				var members []string
				for _, m := range other.Status().Members {
					members = append(members, m.ID)
					if !m.Voter {
						t.Errorf("%s does not vote", m.Name)
					}
				}
				if len(members) != 3 || slices.Contains(members, id) {
					t.Errorf("the members are %v; %s was set aside", members, id)
				}
				c.Kill(v) // and it stays what it is now
				c.Restart(v)
				c.Settle()
				if again := c.Nodes[v].Status().ID; again != s.ID {
					t.Errorf("it is another node after a restart: %s, was %s", again, s.ID)
				}
			})
		})
	}
}

// A copy that runs beside the original is refused, and the original loses nothing.
func TestCopyBesideOriginal(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, when := range []string{"in its life", "before its life"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clustertest.New(t, 3, nil)
				c.Settle()
				time.Sleep(5 * time.Second)
				for _, original := range []int{c.Leader(), (c.Leader() + 1) % 3} {
					var copied string
					if when == "in its life" {
						copied = copyDir(t, c.Config(original).Dir)
					} else {
						c.Kill(original)
						copied = copyDir(t, c.Config(original).Dir)
						c.Restart(original)
						c.Settle()
					}
					term, session := c.Nodes[original].Status().Term, c.Nodes[original].Status().Lease.Session
					if err := c.Nodes[original].Storage().Lock(t.Context(), "x"); err != nil {
						t.Fatal(err)
					}
					i := c.Add(func(_ int, cfg *flotilla.Config) { cfg.Dir = copied })
					wantFailure(t, c.Nodes[i], "one of the two data directories is a copy")
					if err := c.Nodes[i].Ready(t.Context()); errors.Is(err, flotilla.ErrRemoved) {
						t.Errorf("a copy is told that it was removed: %v", err)
					}
					time.Sleep(5 * time.Second)
					s := c.Nodes[original].Status()
					if s.Term != term || s.Lease.Session != session || !s.Ready {
						t.Errorf("the original was disturbed: term %d, was %d; session %d, was %d; ready %v", s.Term, term, s.Lease.Session, session, s.Ready)
					}
					if err := c.Nodes[original].Storage().Unlock(t.Context(), "x"); err != nil {
						t.Errorf("the original has lost a lock: %v", err)
					}
					c.Kill(i)
					c.Restart(i) // again, it is the same
					wantFailure(t, c.Nodes[i], "one of the two data directories is a copy")
					c.Kill(i)
				}
			})
		})
	}
}

// An older copy that starts while the original is cut off joins as a new node. It says that it was
// the original, but the original is not removed in the moments for which a line may be down.
func TestCopyOfOneThatIsCutOff(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		time.Sleep(5 * time.Second)
		original := (c.Leader() + 1) % 3
		others := []int{(original + 1) % 3, (original + 2) % 3}
		c.Kill(original)
		older := copyDir(t, c.Config(original).Dir)
		c.Restart(original)
		c.Settle()
		id := c.Nodes[original].Status().ID
		c.Isolate(original)
		time.Sleep(5 * time.Second)
		i := c.Add(func(_ int, cfg *flotilla.Config) { cfg.Dir = older })
		c.SettleNodes(append(others, i)...)
		if s := c.Nodes[i].Status(); s.ID == id || s.SetAside == "" {
			t.Fatalf("the copy goes on as the original: %+v", s)
		}
		time.Sleep(30 * time.Second)
		c.Heal()
		c.Settle()
		time.Sleep(2 * time.Minute)
		wantReady(t, c.Nodes)
		if got := c.Nodes[original].Status().ID; got != id {
			t.Errorf("the original is %s now, and was %s", got, id)
		}
	})
}

// An original and a copy that start together: the cluster goes on with one of them, and the other
// is told.
func TestCopyStartsWithOriginal(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for seed := range flotilla.Cases(t, 8, 4) {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) {
				cfg.Peers = flotilla.Static("n0:7373", "n1:7373", "n2:7373", "n3:7373")
			})
			c.Settle()
			time.Sleep(5 * time.Second)
			c.Kill(2)
			store(t, c.Nodes[0], "k", "1")
			copied := copyDir(t, c.Config(2).Dir)
			if seed%2 == 0 {
				c.Restart(2)
			}
			i := c.Add(func(_ int, cfg *flotilla.Config) { cfg.Dir = copied })
			if seed%2 == 1 {
				c.Restart(2)
			}
			time.Sleep(10 * time.Second)
			a, b := c.Nodes[2].Status(), c.Nodes[i].Status()
			if a.Ready == b.Ready {
				t.Fatalf("seed %d: ready are %v and %v: %q and %q", seed, a.Ready, b.Ready, a.Err, b.Err)
			}
			loser := i
			if b.Ready {
				loser = 2
			}
			wantFailure(t, c.Nodes[loser], "one of the two data directories is a copy")
			if err := c.Nodes[loser].Ready(t.Context()); errors.Is(err, flotilla.ErrRemoved) {
				t.Errorf("seed %d: %v", seed, err)
			}
			wantReady(t, c.Nodes[:2])
			store(t, c.Nodes[1], "k", "2")
			c.Kill(loser)
			wantEverywhere(t, c, "k", "2")
		})
	}
}

// lines are what nodes have logged.
type lines struct{ testlog.Buffer }

func (l *lines) logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(io.MultiWriter(l, t.Output()), nil))
}

func (l *lines) have(text string) bool { return strings.Contains(l.String(), text) }
