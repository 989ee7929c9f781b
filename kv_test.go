package flotilla_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/kv"
)

// kvCluster returns a cluster of three nodes that are ready.
func kvCluster(t *testing.T, configure func(i int, cfg *flotilla.Config)) *clustertest.Cluster {
	t.Helper()
	c := clustertest.New(t, 3, configure)
	c.Settle()
	return c
}

// Entries are the same on all nodes, with their versions, when a write has returned.
func TestKV(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := kvCluster(t, nil)
		ctx := t.Context()
		if _, err := c.Nodes[0].KV("b").Get(ctx, "k"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("an entry that is not there: %v, want fs.ErrNotExist", err)
		}
		put, err := c.Nodes[0].KV("b").Put(ctx, "k", []byte("v"), kv.Options{TTL: time.Hour})
		if err != nil || put.Key != "k" || string(put.Value) != "v" || put.Version == 0 || time.Until(put.Expires) < time.Hour-time.Second {
			t.Fatalf("put: %+v, %v", put, err)
		}
		for i, n := range c.Nodes {
			if got, err := n.KV("b").Get(ctx, "k"); err != nil || !cmp.Equal(got, put) {
				t.Errorf("n%d has %+v, want %+v: %v", i, got, put, err)
			}
			if _, err := n.KV("other").Get(ctx, "k"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("n%d finds the key in another bucket: %v", i, err)
			}
		}
		updated, err := c.Nodes[1].KV("b").Update(ctx, "k", func(old kv.Entry) ([]byte, error) {
			if !cmp.Equal(old, put) {
				t.Errorf("the update gets %+v, want %+v", old, put)
			}
			return append(old.Value, '2'), nil
		}, kv.Options{})
		if err != nil || string(updated.Value) != "v2" || updated.Version <= put.Version || !updated.Expires.IsZero() {
			t.Errorf("updated: %+v, %v", updated, err)
		}
		mine := errors.New("mine")
		if _, err := c.Nodes[1].KV("b").Update(ctx, "k", func(kv.Entry) ([]byte, error) { return nil, mine }, kv.Options{}); err != mine {
			t.Errorf("an update that gives up: %v", err)
		}
		for _, key := range []string{"list/b", "list/a", "listed", "zero"} {
			if _, err := c.Nodes[2].KV("b").Put(ctx, key, nil, kv.Options{}); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff([]string{"list/a", "list/b", "listed"}, keysOf(t, c.Nodes[0].KV("b"), "list")); diff != "" {
			t.Errorf("the list (-want +got):\n%s", diff)
		}
		for range 2 {
			if err := c.Nodes[2].KV("b").Delete(ctx, "listed"); err != nil {
				t.Error(err)
			}
		}
		if diff := cmp.Diff([]string{"k", "list/a", "list/b", "zero"}, keysOf(t, c.Nodes[0].KV("b"), "")); diff != "" {
			t.Errorf("after a deletion (-want +got):\n%s", diff)
		}
	})
}

// keysOf lists the keys of a bucket.
func keysOf(t *testing.T, s *kv.Store, prefix string) (keys []string) {
	t.Helper()
	for e, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, e.Key)
	}
	return keys
}

// A first write waits until the nodes of a new cluster know that all of them support it.
func TestKVInANewCluster(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.SetLatency(20 * time.Millisecond)
		var all sync.WaitGroup
		for i, n := range c.Nodes {
			all.Go(func() {
				if _, err := n.KV("b").Put(t.Context(), fmt.Sprint(i), nil, kv.Options{}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}

// A bad name, a value that is too large and other mistakes are refused, and the error says which.
func TestKVMistakes(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, func(_ int, cfg *flotilla.Config) { cfg.MaxRecords = 4 << 20 })
		c.Settle()
		s, ctx := c.Nodes[0].KV("b"), t.Context()
		many := make([]kv.Op, kv.MaxOps+1)
		for i := range many {
			many[i] = kv.Delete(strconv.Itoa(i))
		}
		large := make([]byte, kv.MaxValue)
		put := func(s *kv.Store, key string, value []byte, opts kv.Options) error {
			_, err := s.Put(ctx, key, value, opts)
			return err
		}
		for _, test := range []struct {
			name string
			err  error
			want error
			says string
		}{
			{"no key", put(s, "", nil, kv.Options{}), fs.ErrInvalid, "at least one byte"},
			{"a long key", put(s, strings.Repeat("k", kv.MaxKey+1), nil, kv.Options{}), flotilla.ErrTooLarge, "1025 bytes, the limit is 1024"},
			{"the longest key", put(s, strings.Repeat("k", kv.MaxKey), nil, kv.Options{}), nil, ""},
			{"a key that is no text", put(s, "\xff", nil, kv.Options{}), fs.ErrInvalid, "UTF-8"},
			{"a large value", put(s, "k", make([]byte, kv.MaxValue+1), kv.Options{}), flotilla.ErrTooLarge, "the value has 1048577 bytes"},
			{"the largest value", put(s, "k", large, kv.Options{}), nil, ""},
			{"a negative TTL", put(s, "k", nil, kv.Options{TTL: -1}), fs.ErrInvalid, "Options.TTL is -1ns"},
			{"no bucket", put(c.Nodes[0].KV(""), "k", nil, kv.Options{}), fs.ErrInvalid, "name of a bucket"},
			{"a bucket with a zero byte", put(c.Nodes[0].KV("a\x00b"), "k", nil, kv.Options{}), fs.ErrInvalid, "name of a bucket"},
			{"a long bucket", put(c.Nodes[0].KV(strings.Repeat("b", kv.MaxBucket+1)), "k", nil, kv.Options{}), fs.ErrInvalid, "name of a bucket"},
			{"too many operations", s.Txn(ctx, nil, many), flotilla.ErrTooLarge, "129 operations, the limit is 128"},
			{"as many operations as there may be", s.Txn(ctx, nil, many[1:]), nil, ""},
			{"two operations on a key", s.Txn(ctx, nil, []kv.Op{kv.Delete("a"), kv.Put("a", nil, kv.Options{})}), fs.ErrInvalid, `two operations on "a"`},
			{"a large transaction", s.Txn(ctx, nil, []kv.Op{kv.Put("a", large, kv.Options{}), kv.Put("b", large, kv.Options{})}), flotilla.ErrTooLarge, "the transaction has"},
			{"a condition without a key", s.Txn(ctx, []kv.Cond{kv.IfAbsent("")}, nil), fs.ErrInvalid, "at least one byte"},
		} {
			if test.want == nil && test.err != nil || !errors.Is(test.err, test.want) {
				t.Errorf("%s: %v, want %v", test.name, test.err, test.want)
			} else if test.err != nil && (!strings.Contains(test.err.Error(), test.says) || !strings.HasPrefix(test.err.Error(), "flotilla: ")) {
				t.Errorf("%s: %q does not say %q", test.name, test.err, test.says)
			}
		}
	})
}

// A transaction is all or nothing, and its error names the condition that was not true.
func TestKVTxn(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := kvCluster(t, nil)
		s, ctx := c.Nodes[1].KV("b"), t.Context()
		both := []kv.Op{kv.Put("x", []byte("1"), kv.Options{}), kv.Put("y", []byte("2"), kv.Options{})}
		if err := s.Txn(ctx, []kv.Cond{kv.IfAbsent("x"), kv.IfVersion("y", 0)}, both); err != nil {
			t.Fatal(err)
		}
		x, _ := c.Nodes[2].KV("b").Get(ctx, "x")
		y, _ := c.Nodes[0].KV("b").Get(ctx, "y")
		if x.Version == 0 || x.Version != y.Version {
			t.Errorf("the versions of one transaction are %d and %d", x.Version, y.Version)
		}
		for _, test := range []struct {
			name   string
			conds  []kv.Cond
			failed int // -1: none
		}{
			{"present", []kv.Cond{kv.IfExists("x"), kv.IfExists("z")}, 1},
			{"absent", []kv.Cond{kv.IfAbsent("z"), kv.IfExists("x"), kv.IfAbsent("y")}, 2},
			{"version", []kv.Cond{kv.IfVersion("x", x.Version-1)}, 0},
			{"the version of nothing", []kv.Cond{kv.IfVersion("z", x.Version)}, 0},
			{"all true", []kv.Cond{kv.IfVersion("x", x.Version), kv.IfExists("y"), kv.IfAbsent("z")}, -1},
		} {
			err := s.Txn(ctx, test.conds, []kv.Op{kv.Put("x", []byte(test.name), kv.Options{}), kv.Delete("y")})
			conflict := new(kv.ConflictError)
			if test.failed < 0 {
				if err != nil {
					t.Errorf("%s: %v", test.name, err)
				}
				continue
			}
			if !errors.Is(err, kv.ErrConflict) || !errors.As(err, &conflict) || conflict.Cond != test.conds[test.failed] {
				t.Errorf("%s: %v, want a conflict with %v", test.name, err, test.conds[test.failed])
			}
			if now, err := s.Get(ctx, "x"); err != nil || now.Version != x.Version {
				t.Errorf("%s: x was changed: %+v, %v", test.name, now, err)
			}
		}
		if diff := cmp.Diff([]string{"x"}, keysOf(t, s, "")); diff != "" {
			t.Errorf("in the end (-want +got):\n%s", diff)
		}
	})
}

// watching collects what a watch yields, in words.
type watching struct {
	mu   sync.Mutex
	all  []string
	err  error
	stop context.CancelFunc
}

func startWatch(t *testing.T, s *kv.Store, prefix string) *watching {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watching{stop: cancel}
	go func() {
		for e, err := range s.Watch(ctx, prefix) {
			w.mu.Lock()
			switch {
			case err != nil:
				w.err = err
			case e.Expired:
				w.all = append(w.all, e.Entry.Key+" expired")
			case e.Deleted:
				w.all = append(w.all, e.Entry.Key+" deleted")
			default:
				w.all = append(w.all, e.Entry.Key+"="+string(e.Entry.Value))
			}
			w.mu.Unlock()
		}
	}()
	return w
}

// take returns what was yielded since the last call.
func (w *watching) take() string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	all := strings.Join(w.all, " ")
	w.all = nil
	return all
}

// A watch on any node yields the present entries and then each change, over a lost leader, a lost
// lease and a restart of another node. It ends with its context and with its node.
func TestKVWatch(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := kvCluster(t, nil)
		ctx := t.Context()
		put := func(i int, key, value string) {
			t.Helper()
			if _, err := c.Nodes[i].KV("b").Put(ctx, key, []byte(value), kv.Options{}); err != nil {
				t.Fatal(err)
			}
		}
		put(0, "a/1", "x")
		put(0, "z", "x")
		var all []*watching
		for _, n := range c.Nodes {
			all = append(all, startWatch(t, n.KV("b"), "a/"))
		}
		expect := func(when, want string, nodes ...int) {
			t.Helper()
			for _, i := range nodes {
				if got := all[i].take(); got != want {
					t.Errorf("%s: n%d yields %q, want %q", when, i, got, want)
				}
			}
		}
		expect("at first", "a/1=x", 0, 1, 2)
		put(0, "a/2", "y")
		put(1, "z", "y")
		if err := c.Nodes[2].KV("b").Delete(ctx, "a/1"); err != nil {
			t.Fatal(err)
		}
		expect("changes", "a/2=y a/1 deleted", 0, 1, 2)

		leader := c.Leader()
		left := slices.DeleteFunc([]int{0, 1, 2}, func(i int) bool { return i == leader })
		c.Kill(leader)
		put(left[0], "a/3", "z")
		expect("without the old leader", "a/3=z", left...)
		synctest.Wait()
		if !errors.Is(all[leader].err, flotilla.ErrClosed) {
			t.Errorf("the watch of the killed node ends with %v, want ErrClosed", all[leader].err)
		}
		c.Restart(leader)
		c.Settle()
		all[leader] = startWatch(t, c.Nodes[leader].KV("b"), "a/")
		expect("after its restart", "a/2=y a/3=z", leader)

		c.Isolate(left[0])
		time.Sleep(5 * time.Second)
		put(left[1], "a/2", "isolated")
		expect("cut off", "", left[0])
		expect("while another is cut off", "a/2=isolated", left[1], leader)
		c.Heal()
		c.Settle()
		put(left[1], "a/2", "healed")
		expect("reconnected", "a/2=isolated a/2=healed", left[0])
		expect("in the end", "a/2=healed", left[1], leader)

		all[left[0]].stop()
		synctest.Wait()
		if !errors.Is(all[left[0]].err, context.Canceled) {
			t.Errorf("the watch ends with %v, want context.Canceled", all[left[0]].err)
		}
	})
}

// An entry of a session is there as long as its node is, and no longer. Another writer may take it
// over.
func TestKVSession(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, test := range []struct {
		name string
		end  func(c *clustertest.Cluster, i int)
	}{
		{"shut down", func(c *clustertest.Cluster, i int) { c.Stop(i) }},
		{"killed", func(c *clustertest.Cluster, i int) { c.Kill(i) }},
		{"cut off", func(c *clustertest.Cluster, i int) { c.Isolate(i) }},
		{"left", func(c *clustertest.Cluster, i int) { c.Leave(i) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := kvCluster(t, nil)
				ctx := t.Context()
				for i, n := range c.Nodes {
					for _, key := range []string{fmt.Sprint("here/", i), "shared"} {
						if _, err := n.KV("b").Put(ctx, key, nil, kv.Options{Session: true}); err != nil {
							t.Fatal(err)
						}
					}
				}
				w := startWatch(t, c.Nodes[1].KV("b"), "")
				w.take()
				test.end(c, 2)
				time.Sleep(5 * time.Second)
				if got, want := w.take(), "here/2 expired shared expired"; got != want {
					t.Errorf("it yields %q, want %q", got, want)
				}
				if diff := cmp.Diff([]string{"here/0", "here/1"}, keysOf(t, c.Nodes[0].KV("b"), "")); diff != "" {
					t.Errorf("what is left (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// An entry with a TTL is never deleted early, and soon after it is over, also after changes of the
// leader. A write and a refresh let its time begin again.
func TestKVExpiry(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := kvCluster(t, nil)
		ctx := t.Context()
		const ttl = 10 * time.Second
		put := func(key string) {
			t.Helper()
			if _, err := c.Nodes[c.Live()[0]].KV("b").Put(ctx, key, nil, kv.Options{TTL: ttl}); err != nil {
				t.Fatal(err)
			}
		}
		for _, key := range []string{"left", "refreshed", "written"} {
			put(key)
		}
		time.Sleep(ttl - time.Second)
		put("written")
		if err := c.Nodes[2].KV("b").Refresh(ctx, "refreshed"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"left", "refreshed", "written"}, keysOf(t, c.Nodes[0].KV("b"), "")); diff != "" {
			t.Fatalf("before the time is over (-want +got):\n%s", diff)
		}
		w := startWatch(t, c.Nodes[1].KV("b"), "")
		w.take()
		time.Sleep(1500 * time.Millisecond)
		if got := w.take(); got != "left expired" {
			t.Errorf("after the time of one it yields %q", got)
		}
		if err := c.Nodes[2].KV("b").Refresh(ctx, "left"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a refresh of what is gone: %v, want fs.ErrNotExist", err)
		}
		// A new leader counts from its beginning.
		leader := c.Leader()
		c.Stop(leader)
		time.Sleep(ttl - time.Second)
		live := c.Live()
		if diff := cmp.Diff([]string{"refreshed", "written"}, keysOf(t, c.Nodes[live[0]].KV("b"), "")); diff != "" {
			t.Errorf("under a new leader (-want +got):\n%s", diff)
		}
		time.Sleep(2 * time.Second)
		if left := keysOf(t, c.Nodes[live[0]].KV("b"), ""); len(left) > 0 {
			t.Errorf("%v are still there", left)
		}
	})
}

// Refreshes of many entries at the same time go together.
func TestKVRefreshesTogether(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := kvCluster(t, nil)
		s, ctx := c.Nodes[0].KV("b"), t.Context()
		c.SetLatency(time.Millisecond)
		const n = 1000
		var ops []kv.Op
		for i := range n {
			ops = append(ops, kv.Put(strconv.Itoa(i), nil, kv.Options{TTL: time.Minute}))
			if len(ops) == kv.MaxOps || i == n-1 {
				if err := s.Txn(ctx, nil, ops); err != nil {
					t.Fatal(err)
				}
				ops = nil
			}
		}
		before := c.Nodes[0].Status().Index
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				if err := s.Refresh(ctx, strconv.Itoa(i)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if entries := c.Nodes[0].Status().Index - before; entries > 2*n/kv.MaxOps+3 {
			t.Errorf("%d refreshes took %d entries", n, entries)
		}
	})
}

// Thirty updates of one entry at the same time, from all nodes, take hardly more entries than
// thirty. None of them waits much longer than others.
func TestKVContendedUpdates(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := kvCluster(t, nil)
		c.SetLatency(time.Millisecond)
		ctx := t.Context()
		before := c.Nodes[0].Status().Index
		begun := time.Now()
		var all sync.WaitGroup
		var mu sync.Mutex
		took := make(map[int][]time.Duration) // by node
		for i := range 30 {
			all.Go(func() {
				_, err := c.Nodes[i%3].KV("b").Update(ctx, "count", func(old kv.Entry) ([]byte, error) {
					n, _ := strconv.Atoi(string(old.Value))
					return strconv.AppendInt(nil, int64(n+1), 10), nil
				}, kv.Options{})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				took[i%3] = append(took[i%3], time.Since(begun))
			})
		}
		all.Wait()
		entries := c.Nodes[0].Status().Index - before
		t.Logf("%d entries; the last one of each node after %v", entries, took)
		if e, err := c.Nodes[0].KV("b").Get(ctx, "count"); err != nil || string(e.Value) != "30" {
			t.Errorf("the count is %q, want 30: %v", e.Value, err)
		}
		if entries > 40 {
			t.Errorf("30 updates took %d entries, want 40 at most", entries)
		}
		slowest := slices.Max(slices.Collect(maps.Values(took))[0])
		for i, all := range took {
			if last := slices.Max(all); last > 2*slowest || slowest > 2*last {
				t.Errorf("n%d was done after %v, another after %v", i, last, slowest)
			}
		}
	})
}

// Writes in a tenure take effect only while the role is held.
func TestKVFence(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := kvCluster(t, nil)
		var tenure context.Context
		err := c.Nodes[0].Hold(t.Context(), flotilla.Role{Name: "r"}, func(ctx context.Context, _ flotilla.Tenure) error {
			tenure = context.WithoutCancel(ctx)
			_, err := c.Nodes[0].KV("b").Put(ctx, "k", []byte("held"), kv.Options{})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		s := c.Nodes[0].KV("b")
		_, put := s.Put(tenure, "k", []byte("late"), kv.Options{})
		_, update := s.Update(tenure, "k", func(kv.Entry) ([]byte, error) { return []byte("late"), nil }, kv.Options{})
		for name, err := range map[string]error{
			"put": put, "update": update, "delete": s.Delete(tenure, "k"),
			"txn": s.Txn(tenure, nil, []kv.Op{kv.Delete("k")}),
		} {
			if !errors.Is(err, flotilla.ErrLost) {
				t.Errorf("%s after the tenure: %v, want ErrLost", name, err)
			}
		}
		if e, err := s.Get(t.Context(), "k"); err != nil || string(e.Value) != "held" {
			t.Errorf("in the end there is %q: %v", e.Value, err)
		}
	})
}

// Entries are in backups and snapshots, and back after a restart of all nodes. Those of sessions
// end with their sessions.
func TestKVLasts(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := kvCluster(t, nil)
		ctx := t.Context()
		e, err := c.Nodes[0].KV("b").Put(ctx, "k", []byte("v"), kv.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Nodes[0].KV("b").Put(ctx, "session", nil, kv.Options{Session: true}); err != nil {
			t.Fatal(err)
		}
		for i := range c.Nodes {
			c.Stop(i)
		}
		for i := range c.Nodes {
			c.Restart(i)
		}
		c.Settle()
		got, err := c.Nodes[2].KV("b").Get(ctx, "k")
		if diff := cmp.Diff(e, got); diff != "" || err != nil {
			t.Errorf("after a restart (-want +got):\n%s%v", diff, err)
		}
		if diff := cmp.Diff([]string{"k"}, keysOf(t, c.Nodes[1].KV("b"), "")); diff != "" {
			t.Errorf("after a restart (-want +got):\n%s", diff)
		}
	})
}
