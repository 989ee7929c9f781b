package flotilla_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testfiles"
)

func TestStorageSemantics(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		a, b := c.Nodes[0].Storage(), c.Nodes[1].Storage()
		store(t, c.Nodes[0], "a/b/c", "1")
		store(t, c.Nodes[1], "/a//b/../b/d/", "2")
		store(t, c.Nodes[2], "ab", "")

		if got, err := b.Load(t.Context(), "a/b/d"); err != nil || string(got) != "2" {
			t.Errorf("a key in another form: %q, %v", got, err)
		}
		if got, err := b.Load(t.Context(), "ab"); err != nil || got == nil || len(got) != 0 {
			t.Errorf("an empty value is %v, %v; want empty and not nil", got, err)
		}
		got, _ := a.Load(t.Context(), "a/b/c")
		got[0] = 'x'
		wantEverywhere(t, c, "a/b/c", "1") // a caller's copy is its own

		for name, err := range map[string]error{
			"load of nothing":   second(b.Load(t.Context(), "x")),
			"load below a file": second(b.Load(t.Context(), "ab/x")),
			"stat of nothing":   second(b.Stat(t.Context(), "x")),
			"list of nothing":   second(b.List(t.Context(), "x", true)),
			"unlock of nothing": b.Unlock(t.Context(), "x"),
		} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v, want fs.ErrNotExist", name, err)
			}
		}
		for name, err := range map[string]error{
			"load of a directory":    second(b.Load(t.Context(), "a/b")),
			"store onto a directory": b.Store(t.Context(), "a/b", nil),
			"store below a file":     b.Store(t.Context(), "ab/x", nil),
			"store of nothing":       b.Store(t.Context(), "", nil),
			"key with a zero byte":   b.Store(t.Context(), "a\x00b", nil),
		} {
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v, want an error that is not fs.ErrNotExist", name, err)
			}
		}
		if !a.Exists(t.Context(), "a") || a.Exists(t.Context(), "a/bc") || a.Exists(t.Context(), "ab/x") {
			t.Error("Exists is wrong about a directory, a longer name or what lies below a file")
		}
		info, err := b.Stat(t.Context(), "a/b/c")
		if err != nil || !info.IsTerminal || info.Size != 1 || info.Modified.IsZero() {
			t.Errorf("stat of a value: %+v, %v", info, err)
		}
		if info, err := b.Stat(t.Context(), "a"); err != nil || info.IsTerminal || info.Key != "a" {
			t.Errorf("stat of a directory: %+v, %v", info, err)
		}
		for _, l := range []struct {
			dir       string
			recursive bool
			want      []string
		}{
			{"", false, []string{"a", "ab"}},
			{"a/", true, []string{"a/b", "a/b/c", "a/b/d"}},
			{"ab", false, []string{}},
		} {
			got, err := b.List(t.Context(), l.dir, l.recursive)
			if diff := cmp.Diff(l.want, got); diff != "" || err != nil {
				t.Errorf("list of %q: %v\n%s", l.dir, err, diff)
			}
		}
		if err := a.Delete(t.Context(), "nothing"); err != nil {
			t.Errorf("delete of nothing: %v", err)
		}
		if err := a.Delete(t.Context(), "a"); err != nil || b.Exists(t.Context(), "a/b/c") || !b.Exists(t.Context(), "ab") {
			t.Errorf("delete of a directory: %v", err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// What is too large is refused before it is proposed: the log does not grow.
func TestLimits(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, func(_ int, cfg *flotilla.Config) { cfg.MaxState = 3 << 20 })
		c.Settle()
		time.Sleep(10 * time.Second) // the first ticket key is in the state
		s := c.Nodes[0].Storage()
		full, name := make([]byte, flotilla.MaxValue), strings.Repeat("n", flotilla.MaxName)
		for _, key := range []string{"1", "2"} {
			if err := s.Store(t.Context(), key, full); err != nil {
				t.Fatalf("a value of the largest size: %v", err)
			}
		}
		if err := s.Store(t.Context(), name, nil); err != nil {
			t.Errorf("a name of the largest size: %v", err)
		}
		before := c.Nodes[0].Status().Index
		for what, err := range map[string]error{
			"value":     s.Store(t.Context(), "3", append(full, 0)),
			"name":      s.Store(t.Context(), name+"n", nil),
			"lock name": s.Lock(t.Context(), name+"n"),
			"state":     s.Store(t.Context(), "3", full),
		} {
			if !errors.Is(err, flotilla.ErrTooLarge) {
				t.Errorf("%s: %v, want ErrTooLarge", what, err)
			}
		}
		if after := c.Nodes[0].Status().Index; after != before {
			t.Errorf("the log grew from %d to %d", before, after)
		}
		if err := s.Store(t.Context(), "1", full); err != nil {
			t.Errorf("replacing a value in a full state: %v", err)
		}
		if err := s.Delete(t.Context(), "1"); err != nil {
			t.Errorf("deleting in a full state: %v", err)
		}
		if err := s.Store(t.Context(), "3", full); err != nil {
			t.Errorf("after making room: %v", err)
		}
	})
}

// Many large writes at once go to the leader in calls of a bounded size.
func TestManyLargeWrites(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { cfg.MaxState = 1 << 30 })
		c.Settle()
		follower := c.Nodes[(c.Leader()+1)%3]
		var wg sync.WaitGroup
		start := time.Now()
		writes := flotilla.Cases(t, 20, 8)
		for i := range writes {
			wg.Go(func() { store(t, follower, fmt.Sprint(i), string(make([]byte, flotilla.MaxValue))) })
		}
		wg.Wait()
		if took := time.Since(start); took > 40*time.Millisecond {
			t.Errorf("%d writes took %v of virtual time: calls were refused and repeated", writes, took)
		}
	})
}

func TestLocksExcludeInOrder(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		if err := c.Nodes[0].Storage().Lock(t.Context(), "l"); err != nil {
			t.Fatal(err)
		}
		if ok, err := c.Nodes[1].Storage().TryLock(t.Context(), "l"); ok || err != nil {
			t.Errorf("a held lock is there for the taking: %v, %v", ok, err)
		}
		if err := c.Nodes[1].Storage().Unlock(t.Context(), "l"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("another node unlocks: %v", err)
		}
		var mu sync.Mutex
		var order []int
		holders := 0
		var wg sync.WaitGroup
		for i := range 9 {
			wg.Go(func() {
				s := c.Nodes[i%3].Storage()
				if err := s.Lock(t.Context(), "l"); err != nil {
					t.Errorf("claim %d: %v", i, err)
					return
				}
				mu.Lock()
				holders++
				if holders != 1 {
					t.Errorf("%d hold the lock", holders)
				}
				order = append(order, i)
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				holders--
				mu.Unlock()
				if err := s.Unlock(t.Context(), "l"); err != nil {
					t.Errorf("unlocking %d: %v", i, err)
				}
			})
			time.Sleep(100 * time.Millisecond) // so that there is an order
		}
		if err := c.Nodes[0].Storage().Unlock(t.Context(), "l"); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if diff := cmp.Diff([]int{0, 1, 2, 3, 4, 5, 6, 7, 8}, order); diff != "" {
			t.Errorf("the order of those who waited:\n%s", diff)
		}
	})
}

func TestCancelledWaiterLeavesTheQueue(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		if err := c.Nodes[0].Storage().Lock(t.Context(), "l"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Nodes[1].Storage().Lock(ctx, "l"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the waiter gets %v", err)
		}
		time.Sleep(time.Second)
		if err := c.Nodes[0].Storage().Unlock(t.Context(), "l"); err != nil {
			t.Fatal(err)
		}
		if ok, err := c.Nodes[2].Storage().TryLock(t.Context(), "l"); !ok || err != nil {
			t.Errorf("the lock went to somebody who no longer waits: %v, %v", ok, err)
		}
	})
}

// A lock ends with its node's session: soon if the node shuts down or comes back, after a while if
// it is gone. What the old holder still wants to write is refused.
func TestLockOfALostNode(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, test := range []struct {
		name  string
		lose  func(c *clustertest.Cluster)
		limit time.Duration
	}{
		{"shut down", func(c *clustertest.Cluster) { c.Stop(0) }, 100 * time.Millisecond},
		{"restarted", func(c *clustertest.Cluster) { c.Kill(0); c.Restart(0) }, time.Second},
		{"killed", func(c *clustertest.Cluster) { c.Kill(0) }, 700 * time.Millisecond},
		{"cut off", func(c *clustertest.Cluster) { c.Isolate(0) }, 800 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clustertest.New(t, 3, nil)
				c.Settle()
				held := c.Nodes[0].Storage()
				if err := held.Lock(t.Context(), "l"); err != nil {
					t.Fatal(err)
				}
				test.lose(c)
				start := time.Now()
				if err := c.Nodes[1].Storage().Lock(t.Context(), "l"); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took > test.limit {
					t.Errorf("the next one gets the lock after %v, want at most %v", took, test.limit)
				}
				if test.name != "cut off" {
					return
				}
				late := make(chan error)
				// proposed in the session that has ended
				go func() { late <- held.Store(t.Context(), "late", []byte("x")) }()
				time.Sleep(time.Second)
				c.Heal()
				if err := <-late; !errors.Is(err, flotilla.ErrLost) {
					t.Errorf("a late store of the old holder: %v, want ErrLost", err)
				}
				c.Settle()
				if c.Nodes[1].Storage().Exists(t.Context(), "late") {
					t.Error("a late store of the old holder took effect")
				}
				if err := held.Unlock(t.Context(), "l"); !errors.Is(err, flotilla.ErrLost) {
					t.Errorf("unlocking what was lost: %v, want ErrLost", err)
				}
				if err := held.Store(t.Context(), "new", []byte("x")); err != nil {
					t.Errorf("in its next session: %v", err)
				}
			})
		})
	}
}

// Without a quorum a node answers what it has and admits what it cannot know; writes wait and then
// name the reason.
func TestWithoutQuorum(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		store(t, c.Nodes[0], "k", "1")
		store(t, c.Nodes[0], "unknown", "1")
		c.Kill(1)
		c.Kill(2)
		wantEverywhere(t, c, "k", "1")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := c.Nodes[0].Storage().Store(ctx, "unknown", []byte("2")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a write with a deadline: %v", err)
		}
		start := time.Now()
		err := c.Nodes[0].Storage().Store(t.Context(), "unknown", []byte("2"))
		if took := time.Since(start); !errors.Is(err, flotilla.ErrNoLeader) || took > 31*time.Second {
			t.Errorf("a write without a deadline, after %v: %v; want ErrNoLeader", took, err)
		}

		c.Kill(0)
		c.Restart(0) // alone: it cannot know whether its log is the newest
		start = time.Now()
		_, err = c.Nodes[0].Storage().Load(t.Context(), "nothing")
		if took := time.Since(start); !errors.Is(err, flotilla.ErrNotReady) || errors.Is(err, fs.ErrNotExist) || took > 3*time.Second {
			t.Errorf("a read after a restart alone, after %v: %v; want ErrNotReady", took, err)
		}
		if _, err := c.Nodes[0].Storage().List(t.Context(), "nothing", true); !errors.Is(err, flotilla.ErrNotReady) {
			t.Errorf("a list after a restart alone: %v; want ErrNotReady", err)
		}
		// What it had applied it has again, although no snapshot was taken and no leader says that it is
		// committed.
		if keys, err := c.Nodes[0].Storage().List(t.Context(), "", true); err != nil || !slices.Equal(keys, []string{"k", "unknown"}) {
			t.Errorf("a list of what it has: %q, %v", keys, err)
		}
		if v, err := c.Nodes[0].Storage().Load(t.Context(), "unknown"); err != nil || string(v) != "1" {
			t.Errorf("what was written without a majority: %q, %v; want what was acknowledged", v, err)
		}
		c.Restart(1)
		c.Settle()
		wantEverywhere(t, c, "k", "1")
	})
}

func TestClosedNode(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		n := c.Nodes[0]
		waiting := make(chan error)
		if err := n.Storage().Lock(t.Context(), "l"); err != nil {
			t.Fatal(err)
		}
		go func() { waiting <- n.Storage().Lock(t.Context(), "l") }()
		time.Sleep(time.Second)
		c.Kill(0)
		for name, err := range map[string]error{
			"a lock under way": <-waiting,
			"store":            n.Storage().Store(t.Context(), "k", nil),
			"ready":            n.Ready(t.Context()),
			"shutdown":         n.Shutdown(t.Context()),
			"leave":            n.Leave(t.Context()),
			"close":            n.Close(),
			"listen":           second(n.ListenTLS("tcp", "127.0.0.1:0", "a.example")),
		} {
			if !errors.Is(err, flotilla.ErrClosed) || !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s on a closed node: %v, want ErrClosed", name, err)
			}
		}
		for range n.Watch(t.Context()) {
		}
	})
}

// No name or value is in any file of any node in plain.
func TestDisksHoldOnlyCiphertext(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		store(t, c.Nodes[0], "certificates/ca/secret.example/secret.example.key", "-----BEGIN EC PRIVATE KEY-----")
		if err := c.Nodes[1].Storage().Lock(t.Context(), "issue_cert_secret.example"); err != nil {
			t.Fatal(err)
		}
		for i := range c.Nodes {
			c.Kill(i)
			dir := c.Config(i).Dir
			for _, plain := range []string{"secret.example", "BEGIN", c.Config(i).Secrets[0].Encode()} {
				if paths := testfiles.With(t, dir, plain); len(paths) > 0 {
					t.Errorf("n%d has %q on its disk, in %v", i, plain, paths)
				}
			}
			if len(testfiles.With(t, dir, "n0")) == 0 {
				t.Errorf("the search finds nothing in the files of n%d, not even its name", i)
			}
		}
	})
}
