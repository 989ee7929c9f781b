package flotilla_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testfiles"
)

func TestFormationWaitsForAll(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Isolate(2)
		time.Sleep(time.Minute)
		for i, n := range c.Nodes {
			if s := n.Status(); s.Cluster != "" || s.Ready {
				t.Errorf("n%d is in a cluster while n2 cannot be seen: %+v", i, s)
			}
		}
		c.Heal()
		c.Settle()
	})
}

// However the network fails while nodes form a cluster, they end in one.
func TestFormationEndsInOneCluster(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for seed := range uint64(flotilla.Cases(t, 15, 2)) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			c := clustertest.New(t, 4, func(i int, cfg *flotilla.Config) { cfg.Expect = 3 })
			for range 20 {
				switch random.IntN(4) {
				case 0:
					c.Isolate(random.IntN(4))
				case 1:
					c.Block(random.IntN(4), random.IntN(4))
				case 2:
					c.Partition([]int{0, random.IntN(2) + 1}, []int{3})
				case 3:
					i := random.IntN(4)
					c.Kill(i)
					c.Restart(i)
				}
				time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond)
				c.Heal()
				time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond)
			}
			c.Settle()
			cluster := c.Nodes[0].Status().Cluster
			for i, n := range c.Nodes {
				if s := n.Status(); s.Cluster != cluster || len(s.Members) != 4 {
					t.Errorf("seed %d: n%d is in cluster %s with %d members, n0 in %s", seed, i, s.Cluster, len(s.Members), cluster)
				}
			}
		})
	}
}

func TestJoinThenVote(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		store(t, c.Nodes[0], "old", "1")
		i := c.Add(nil)
		c.Settle()
		wantEverywhere(t, c, "old", "1")
		votes := func() int {
			voters := 0
			for _, m := range c.Nodes[i].Status().Members {
				if m.Voter {
					voters++
				}
			}
			return voters
		}
		if votes() != 1 {
			t.Error("a node that has just joined votes")
		}
		time.Sleep(5 * time.Second)
		if votes() != 1 {
			t.Error("a node that joined 5 s ago votes")
		}
		time.Sleep(10 * time.Second)
		if votes() != 2 {
			t.Error("a node that joined 15 s ago does not vote")
		}
	})
}

func TestRestart(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		store(t, c.Nodes[1], "k", "1")
		ids := []string{c.Nodes[0].Status().ID, c.Nodes[1].Status().ID, c.Nodes[2].Status().ID}
		for i := range c.Nodes {
			c.Kill(i)
		}
		for i := range c.Nodes {
			c.Restart(i)
		}
		c.Settle()
		wantEverywhere(t, c, "k", "1")
		for i, n := range c.Nodes {
			if got := n.Status().ID; got != ids[i] {
				t.Errorf("n%d has another ID after a restart", i)
			}
		}
	})
}

func TestRollingRestart(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		for i := range c.Nodes {
			c.Stop(i)
			start := time.Now()
			store(t, c.Nodes[(i+1)%3], "k", "1")
			if gap := time.Since(start); gap > 100*time.Millisecond {
				t.Errorf("a write took %v after n%d was stopped", gap, i)
			}
			c.Restart(i)
			start = time.Now()
			c.Settle()
			if gap := time.Since(start); gap > time.Second {
				t.Errorf("n%d took %v to be ready again", i, gap)
			}
		}
	})
}

// A node that was away is current as soon as it is back, however long it was away.
func TestReturnAfterLong(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		i := (c.Leader() + 1) % 3
		c.Kill(i)
		time.Sleep(10 * time.Minute)
		store(t, c.Nodes[c.Leader()], "k", "1")
		c.Restart(i)
		start := time.Now()
		c.Settle()
		if took := time.Since(start); took > time.Second {
			t.Errorf("n%d took %v to be ready after ten minutes away", i, took)
		}
		wantEverywhere(t, c, "k", "1")
	})
}

func TestReturnWithAnotherAddress(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		for i := range c.Nodes {
			c.Kill(i)
			c.Config(i).Addr = ":8484"
			c.Restart(i)
			c.Settle()
		}
		store(t, c.Nodes[0], "k", "1")
		wantEverywhere(t, c, "k", "1")
		time.Sleep(5 * time.Second)
		for _, m := range c.Nodes[1].Status().Members {
			if !strings.HasSuffix(m.Addr, ":8484") {
				t.Errorf("%s is still thought to be at %s", m.Name, m.Addr)
			}
		}
	})
}

func TestLeave(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		store(t, c.Nodes[0], "k", "1")
		i := c.Leader()
		id := c.Nodes[i].Status().ID
		c.Leave(i)
		c.Settle()
		for _, j := range c.Live() {
			if got := len(c.Nodes[j].Status().Members); got != 2 {
				t.Errorf("n%d counts %d members after one has left", j, got)
			}
		}
		c.Restart(i) // with the directory of a node that left
		c.Settle()
		s := c.Nodes[i].Status()
		if s.ID == id {
			t.Error("a node that left came back with its old ID")
		}
		if len(s.Members) != 3 {
			t.Errorf("%d members after it came back", len(s.Members))
		}
		wantEverywhere(t, c, "k", "1")
	})
}

func TestLastMemberCannotLeave(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		err := c.Nodes[0].Leave(t.Context())
		if err == nil || !strings.Contains(err.Error(), "only member") {
			t.Errorf("the last member leaves: %v", err)
		}
		store(t, c.Nodes[0], "k", "1") // and it still works
	})
}

// The wrong secret, the wrong cluster, a copied directory: each has its sentence, and nothing is
// written.
func TestWrongDirectoryOrSecret(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	t.Run("secret of another cluster", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 1, nil)
			c.Settle()
			other := flotilla.NewSecret()
			i := c.Add(func(_ int, cfg *flotilla.Config) { cfg.Secrets = []flotilla.Secret{other} })
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := c.Nodes[i].Ready(ctx)
			if err == nil || !strings.Contains(err.Error(), "another cluster secret") {
				t.Errorf("Ready says %v", err)
			}
			if got := files(t, c.Config(i).Dir); !slices.Equal(got, []string{"lock", "node"}) {
				t.Errorf("the node wrote %v", got)
			}
			c.Kill(i) // and with the right secret it joins
			c.Config(i).Secrets = c.Config(0).Secrets
			c.Restart(i)
			c.Settle()
		})
	})
	t.Run("directory sealed with another secret", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 1, nil)
			c.Settle()
			c.Kill(0)
			before := testfiles.Read(t, c.Config(0).Dir)
			cfg := *c.Config(0)
			cfg.Secrets = []flotilla.Secret{flotilla.NewSecret()}
			wantConfigError(t, cfg, "Secrets", "is sealed with the secret")
			if diff := cmp.Diff(before, testfiles.Read(t, cfg.Dir)); diff != "" {
				t.Errorf("the directory was changed (-before +after):\n%s", diff)
			}
			c.Restart(0)
			c.Settle()
		})
	})
	t.Run("directory in use", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 1, nil)
			c.Settle()
			cfg := *c.Config(0)
			wantConfigError(t, cfg, "Dir", "in use by another process")
		})
	})
	t.Run("directory of another cluster", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			secret := flotilla.NewSecret()
			same := func(i int, cfg *flotilla.Config) { cfg.Secrets = []flotilla.Secret{secret} }
			a := clustertest.New(t, 1, same)
			a.Settle()
			a.Kill(0)
			b := clustertest.New(t, 3, same)
			b.Settle()
			i := b.Add(func(_ int, cfg *flotilla.Config) { same(0, cfg); cfg.Dir = a.Config(0).Dir })
			wantFailure(t, b.Nodes[i], "belongs to the cluster")
		})
	})
	t.Run("copied directory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 3, nil)
			c.Settle()
			c.Kill(1)
			copied := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(copied, os.DirFS(c.Config(1).Dir)); err != nil {
				t.Fatal(err)
			}
			c.Restart(1)
			c.Settle()
			i := c.Add(func(_ int, cfg *flotilla.Config) { cfg.Dir = copied })
			wantFailure(t, c.Nodes[i], "one of the two data directories is a copy")
			store(t, c.Nodes[0], "k", "1")
		})
	})
	t.Run("node that was removed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 3, nil)
			c.Settle()
			c.Kill(1)
			kept := filepath.Join(t.TempDir(), "kept")
			if err := os.CopyFS(kept, os.DirFS(c.Config(1).Dir)); err != nil {
				t.Fatal(err)
			}
			c.Restart(1)
			c.Settle()
			c.Leave(1)
			c.Config(1).Dir = kept
			c.Restart(1)
			wantFailure(t, c.Nodes[1], "has removed it")
			if err := c.Nodes[1].Ready(t.Context()); !errors.Is(err, flotilla.ErrRemoved) {
				t.Errorf("Ready says %v, want ErrRemoved", err)
			}
			c.SettleNodes(0, 2)
		})
	})
	t.Run("log is gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 1, nil)
			c.Settle()
			c.Kill(0)
			if err := os.Remove(filepath.Join(c.Config(0).Dir, "raft.db")); err != nil {
				t.Fatal(err)
			}
			wantConfigError(t, *c.Config(0), "Dir", "raft.db")
		})
	})
	t.Run("identity is gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := clustertest.New(t, 1, nil)
			c.Settle()
			c.Kill(0)
			if err := os.Remove(filepath.Join(c.Config(0).Dir, "node")); err != nil {
				t.Fatal(err)
			}
			wantConfigError(t, *c.Config(0), "Dir", "raft log but no file")
		})
	})
}

func wantFailure(t *testing.T, n *flotilla.Node, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := n.Ready(ctx)
	if err == nil || !strings.Contains(err.Error(), text) || ctx.Err() != nil {
		t.Errorf("Ready says %v, want %q in it", err, text)
	}
	if got := n.Status().Err; !strings.Contains(got, text) {
		t.Errorf("Status says %q, want %q in it", got, text)
	}
}

func wantConfigError(t *testing.T, cfg flotilla.Config, field, text string) {
	t.Helper()
	n, err := flotilla.Open(t.Context(), cfg)
	if err == nil {
		n.Close()
		t.Fatalf("Open accepts what should be wrong with %s", field)
	}
	var ce *flotilla.ConfigError
	if !errors.As(err, &ce) || ce.Field != field || !strings.Contains(err.Error(), text) {
		t.Errorf("Open says %v; want a ConfigError of %s with %q in it", err, field, text)
	}
	if n := strings.Count(err.Error(), "flotilla: "); n != 1 {
		t.Errorf("the error has its prefix %d times: %v", n, err)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// stepOf returns how far node i has gone with a proposed cluster, as it stands on its disk.
func stepOf(t *testing.T, c *clustertest.Cluster, i int) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.Config(i).Dir, "node"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"proposes", "promised", "voided", "accepted"} {
		if strings.Contains(string(b), `"Step": "`+s+`"`) {
			return s
		}
	}
	return ""
}

func awaitStep(t *testing.T, c *clustertest.Cluster, i int, step string) {
	t.Helper()
	for start := time.Now(); stepOf(t, c, i) != step; time.Sleep(100 * time.Microsecond) {
		if time.Since(start) > 3*time.Second {
			t.Fatalf("n%d has not %s", i, step)
		}
	}
}

// byID returns the numbers of the nodes in the order of their IDs: the first one proposes a
// cluster.
func byID(c *clustertest.Cluster) []int {
	var order []int
	for i := range c.Nodes {
		order = append(order, i)
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(c.Nodes[a].Status().ID, c.Nodes[b].Status().ID) })
	return order
}

// One of a group that is cut off from the others cannot know whether they have formed the cluster:
// it forms no other one, however long that lasts and however many could do so with it.
func TestOneAloneVoidsNothing(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.SetLatency(5 * time.Millisecond)
		order := byID(c)
		awaitStep(t, c, order[0], "accepted")
		other := append(order[2:3:3], 3, 4)
		c.Partition(order[:2], other)
		for range 2 {
			c.Add(func(_ int, cfg *flotilla.Config) {
				cfg.Expect, cfg.Peers = 3, flotilla.Static("n0:7373", "n1:7373", "n2:7373", "n3:7373", "n4:7373")
			})
		}
		time.Sleep(time.Minute)
		c.SettleNodes(order[0], order[1])
		for _, i := range other {
			if s := c.Nodes[i].Status(); s.Cluster != "" {
				t.Errorf("n%d, which is cut off, is in the cluster %s", i, s.Cluster)
			}
		}
		if got := stepOf(t, c, order[2]); got != "promised" {
			t.Errorf("its promise is %q", got)
		}
		c.Heal()
		c.Settle()
	})
}

// A proposer that has accepted its own cluster finds, when it is back, that the others have voided
// it.
func TestProposerFindsItsProposalVoided(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		order := byID(c)
		c.SetLatency(5 * time.Millisecond)
		awaitStep(t, c, order[2], "promised")
		for _, i := range order[1:] {
			// the proposer hears the last promise, and nobody hears that it accepts
			c.Block(order[0], i)
		}
		awaitStep(t, c, order[0], "accepted")
		c.Isolate(order[0])
		c.Add(func(_ int, cfg *flotilla.Config) { cfg.Expect = 3 })
		time.Sleep(time.Minute)
		c.SettleNodes(order[1], order[2], 3)
		if got := stepOf(t, c, order[0]); got != "accepted" {
			t.Errorf("the proposer %s its cluster", got)
		}
		c.Heal()
		c.Settle()
		for i, n := range c.Nodes {
			if s := n.Status(); s.Cluster != c.Nodes[0].Status().Cluster || len(s.Members) != 4 {
				t.Errorf("n%d is in the cluster %s of %d members", i, s.Cluster, len(s.Members))
			}
		}
	})
}

// A proposer that is lost for good while others have promised themselves to it keeps nobody from
// forming another cluster.
func TestProposerNeverComesBack(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		order := byID(c)
		proposer, other, late := order[0], order[1], order[2]
		awaitStep(t, c, proposer, "proposes")
		c.Isolate(late)
		awaitStep(t, c, other, "promised")
		c.Kill(proposer)
		if got := stepOf(t, c, proposer); got != "proposes" {
			t.Fatalf("the proposer was killed too late: it %s the cluster", got)
		}
		if err := os.RemoveAll(c.Config(proposer).Dir); err != nil {
			t.Fatal(err)
		}
		c.Restart(proposer)
		time.Sleep(5 * time.Second)
		c.Heal()
		if got := stepOf(t, c, other); got != "promised" {
			t.Errorf("5 s after its proposer was lost the promise is %q", got)
		}
		c.Settle()
	})
}

// logHas is a log that is searched for a text.
type logHas struct {
	text string
	seen atomic.Bool
}

func (l *logHas) Write(p []byte) (int, error) {
	if strings.Contains(string(p), l.text) {
		l.seen.Store(true)
	}
	return len(p), nil
}

// What a node without a directory has promised is gone with its process: one that survives does not
// wait for it.
func TestFormationWithoutDirectories(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for k := 0; k < 60; k += flotilla.Cases(t, 1, 5) {
		synctest.Test(t, func(t *testing.T) {
			var lives logHas
			lives.text = "taking part in a new cluster"
			c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) {
				cfg.Dir, cfg.Logger = "", slog.New(slog.NewTextHandler(&lives, nil))
			})
			c.SetLatency(5 * time.Millisecond)
			order := byID(c)
			time.Sleep(time.Duration(k) * 3 * time.Millisecond)
			if lives.seen.Load() {
				return // it has a majority to lose
			}
			for _, i := range order[:2] {
				c.Kill(i)
				c.Restart(i)
			}
			c.Settle()
		})
	}
}
