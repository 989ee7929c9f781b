package changes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// machine applies commands, as the state machine of a node does.
type machine struct {
	store *applied.Store
	feed  *Feed
}

func newMachine() *machine {
	store := applied.New()
	return &machine{store: store, feed: New(store)}
}

// apply applies changes of one bucket, each as an entry, and publishes them together.
func (m *machine) apply(all ...state.Change) {
	s := m.store.State()
	var fx state.Effects
	for _, change := range all {
		s, _ = s.Apply(s.Index+1, &state.Command{Change: change}, &fx)
	}
	m.store.Publish(s)
	m.feed.Add(fx.Items)
}

func put(keys ...string) state.Change {
	c := state.WriteItems{Bucket: "b", MaxRecords: 1 << 30}
	for _, key := range keys {
		c.Ops = append(c.Ops, state.ItemOp{Key: key, Put: &state.ItemPut{Value: []byte(key), TTL: 1}})
	}
	return c
}

func del(keys ...string) state.Change {
	c := state.WriteItems{Bucket: "b"}
	for _, key := range keys {
		c.Ops = append(c.Ops, state.ItemOp{Key: key})
	}
	return c
}

func refresh(key string) state.Change {
	return state.WriteItems{Bucket: "b", Ops: []state.ItemOp{{Key: key, Refresh: true}}}
}

// describe writes changes down.
func describe(all []state.ItemChange) string {
	var out []string
	for _, c := range all {
		kind := ""
		switch {
		case c.Item == nil:
			kind = "-"
		case c.IsRefresh():
			kind = "~"
		}
		out = append(out, fmt.Sprintf("%s%s@%d", kind, state.ItemKey(c.Name), c.Version))
	}
	return strings.Join(out, " ")
}

// next returns what a watcher yields now.
func next(t *testing.T, w *Watcher) string {
	t.Helper()
	synctest.Wait()
	all, changed, err := w.Next()
	if err != nil {
		return err.Error()
	}
	if changed != nil && len(all) > 0 || changed == nil && len(all) == 0 {
		t.Errorf("%d changes, and a channel to wait for: %v", len(all), changed != nil)
	}
	return describe(all)
}

// run runs f in a bubble, beside the feed's goroutine.
func run(t *testing.T, f func(t *testing.T, m *machine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			m.feed.Run(ctx)
			close(done)
		}()
		f(t, m)
		cancel()
		<-done
	})
}

// A watcher yields the changes with its prefix, all of an entry together.
func TestWatch(t *testing.T) {
	run(t, func(t *testing.T, m *machine) {
		m.apply(put("before"))
		all, s := m.feed.Watch("b\x00", false)
		defer all.Close()
		some, _ := m.feed.Watch("b\x00x", false)
		defer some.Close()
		every, _ := m.feed.Watch("", true)
		defer every.Close()
		if s.Index != 1 || s.Items.Get("b\x00before") == nil {
			t.Errorf("the watch begins behind entry %d", s.Index)
		}
		for _, step := range []struct {
			name             string
			apply            []state.Change
			all, some, every string
		}{
			{"nothing", nil, "", "", ""},
			{"another prefix", []state.Change{put("y")}, "y@2", "", "y@2"},
			{"two entries at once", []state.Change{put("x1", "y"), del("y")}, "x1@3 y@3 -y@4", "x1@3", "x1@3 y@3 -y@4"},
			{"a refresh", []state.Change{refresh("x1")}, "", "", "~x1@5"},
			{"a refresh and more", []state.Change{refresh("x1"), put("x2")}, "x2@7", "x2@7", "~x1@6 x2@7"},
			{"a deletion of nothing", []state.Change{del("z")}, "", "", ""},
			{"the prefix itself", []state.Change{put("x")}, "x@9", "x@9", "x@9"},
		} {
			m.apply(step.apply...)
			for _, w := range []struct {
				name string
				*Watcher
				want string
			}{{"all", all, step.all}, {"some", some, step.some}, {"every", every, step.every}} {
				if got := next(t, w.Watcher); got != w.want {
					t.Errorf("%s: %s yields %q, want %q", step.name, w.name, got, w.want)
				}
				if got := next(t, w.Watcher); got != "" {
					t.Errorf("%s: %s yields %q the second time", step.name, w.name, got)
				}
			}
		}
	})
}

// A watcher waits for the channel that Next returns. The channel of a watcher whose prefix is quiet
// stays open.
func TestWatchWaits(t *testing.T) {
	run(t, func(t *testing.T, m *machine) {
		w, _ := m.feed.Watch("b\x00x", false)
		defer w.Close()
		_, changed, _ := w.Next()
		m.apply(put("y"))
		synctest.Wait()
		select {
		case <-changed:
			t.Fatal("a change with another prefix wakes it")
		default:
		}
		m.apply(put("x"))
		<-changed
		if got := next(t, w); got != "x@2" {
			t.Errorf("it yields %q", got)
		}
	})
}

// Many watchers of a prefix are woken in steps. Each is woken once in a round, however many changes
// there are, and yields all of them.
func TestWatchersWakeInSteps(t *testing.T) {
	run(t, func(t *testing.T, m *machine) {
		const watchers, changes = 100, 50
		start := time.Now()
		var woken []time.Duration
		yielded := make(map[string]int)
		var mu sync.Mutex
		var running sync.WaitGroup
		for range watchers {
			running.Go(func() {
				w, _ := m.feed.Watch("b\x00", false)
				defer w.Close()
				for last := 0; last < changes; {
					all, changed, err := w.Next()
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					for _, c := range all {
						yielded[c.Name]++
						last = int(c.Version)
					}
					mu.Unlock()
					if changed == nil {
						continue
					}
					<-changed
					mu.Lock()
					woken = append(woken, time.Since(start))
					mu.Unlock()
				}
			})
		}
		synctest.Wait()
		m.apply(put("x1"))
		synctest.Wait()
		if len(woken) != wakeAtOnce {
			t.Errorf("%d watchers are woken at once, want %d", len(woken), wakeAtOnce)
		}
		for i := range changes - 1 {
			m.apply(put(fmt.Sprint("x", i+2)))
			synctest.Wait()
		}
		running.Wait()
		if last := woken[len(woken)-1]; len(woken) > 2*watchers || last > 2*wakeSteps*wakePause {
			t.Errorf("%d watchers were woken %d times, the last %v after the first change", watchers, len(woken), last)
		}
		for name, n := range yielded {
			if n != watchers {
				t.Errorf("%s was yielded %d times", name, n)
			}
		}
		if len(yielded) != changes {
			t.Errorf("%d changes were yielded, want %d", len(yielded), changes)
		}
	})
}

// A slow watcher gets the newest change of each item, from the state. One whose prefix is quiet
// does not lag, however much others change.
func TestSlowWatch(t *testing.T) {
	run(t, func(t *testing.T, m *machine) {
		m.apply(put("gone"), put("kept"), put("quiet"))
		slow, _ := m.feed.Watch("b\x00", false)
		defer slow.Close()
		quiet, _ := m.feed.Watch("b\x00quiet", false)
		defer quiet.Close()
		m.apply(del("gone"))
		for range maxRecent {
			m.apply(put("x"))
			synctest.Wait() // for Run, which passes it on
		}
		m.apply(refresh("kept"), put("new"))
		last := m.store.State().Index
		m.apply(put("quiet"))
		if got, want := next(t, quiet), fmt.Sprintf("quiet@%d", last+1); got != want {
			t.Errorf("the quiet one yields %q, want %q", got, want)
		}
		want := fmt.Sprintf("-gone@4 x@%d new@%d quiet@%d", 4+maxRecent, last, last+1)
		if got := next(t, slow); got != want {
			t.Errorf("the slow one yields %q, want %q", got, want)
		}
		if got := next(t, slow); got != "" {
			t.Errorf("the slow one yields %q the second time", got)
		}
	})
}

// A watcher of a quiet prefix goes on although more deletions are forgotten than are remembered,
// and one that has missed such a deletion ends.
func TestLaggedWatch(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	run(t, func(t *testing.T, m *machine) {
		m.apply(put("before"))
		slow, _ := m.feed.Watch("b\x00", false)
		defer slow.Close()
		quiet, _ := m.feed.Watch("b\x00quiet", false)
		defer quiet.Close()
		var keys []string
		for n := range state.MaxItemOps {
			keys = append(keys, fmt.Sprint("x", n))
		}
		for range 16384/state.MaxItemOps + 1 {
			m.apply(put(keys...), del(keys...))
			synctest.Wait()
		}
		m.apply(put("quiet"))
		if got, want := next(t, quiet), fmt.Sprintf("quiet@%d", m.store.State().Index); got != want {
			t.Errorf("the quiet one yields %q, want %q", got, want)
		}
		synctest.Wait()
		if _, _, err := slow.Next(); !errors.Is(err, ErrLagged) {
			t.Errorf("the error of the slow one is %v, want ErrLagged", err)
		}
	})
}

// After a snapshot, watchers yield how it differs from what they have yielded.
func TestWatchOverASnapshot(t *testing.T) {
	run(t, func(t *testing.T, m *machine) {
		m.apply(put("gone", "kept", "changed"))
		w, _ := m.feed.Watch("b\x00", false)
		defer w.Close()
		if got := next(t, w); got != "" {
			t.Errorf("at first it yields %q", got)
		}
		late := &machine{store: applied.New()}
		late.store.Publish(m.store.State())
		late.feed = New(late.store)
		late.apply(del("gone"))
		late.apply(put("changed"))
		late.apply(put("new"))
		m.store.Publish(late.store.State())
		m.feed.Reset()
		if got, want := next(t, w), "-gone@2 changed@3 new@4"; got != want {
			t.Errorf("it yields %q, want %q", got, want)
		}
		m.apply(put("later"))
		if got, want := next(t, w), "later@5"; got != want {
			t.Errorf("then it yields %q, want %q", got, want)
		}
	})
}

// The last watcher of a prefix takes its group along.
func TestGroupsEnd(t *testing.T) {
	run(t, func(t *testing.T, m *machine) {
		a, _ := m.feed.Watch("b\x00", false)
		b, _ := m.feed.Watch("b\x00", false)
		if n := m.feed.groups.Load().Len(); n != 1 {
			t.Errorf("two watchers of one prefix have %d groups", n)
		}
		a.Close()
		m.apply(put("x"))
		if got := next(t, b); got != "x@1" {
			t.Errorf("the other one yields %q", got)
		}
		b.Close()
		if n := m.feed.groups.Load().Len(); n != 0 {
			t.Errorf("%d groups are left", n)
		}
	})
}

// Whatever happens, watchers of any speed yield versions that rise, and have in the end what the
// state has. A watcher that is never slow yields every change.
func TestWatchersFollow(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			run(t, func(t *testing.T, m *machine) {
				random := rand.New(rand.NewPCG(seed, 1))
				key := func() string { return fmt.Sprintf("%c%d", 'a'+random.IntN(3), random.IntN(20)) }
				var followers []*follower
				for i, prefix := range []string{"b\x00", "b\x00a", "b\x00a1", "b\x00c"} {
					w, s := m.feed.Watch(prefix, false)
					defer w.Close()
					followers = append(followers, &follower{w: w, at: s.Index, slow: i * 400, has: make(map[string]uint64)})
				}
				var changed []string // all changes, as the first watcher must yield them
				for range 2000 {
					var all []state.Change
					for range 1 + random.IntN(3) {
						switch random.IntN(4) {
						case 0:
							all = append(all, del(key()))
						case 1:
							all = append(all, refresh(key()))
						default:
							all = append(all, put(key()))
						}
					}
					end := m.feed.latest.Load().end
					if random.IntN(400) == 0 { // they come in a snapshot
						s := m.store.State()
						for _, change := range all {
							s, _ = s.Apply(s.Index+1, &state.Command{Change: change}, nil)
						}
						m.store.Publish(s)
						m.feed.Reset()
						followers[0].skips = true
					} else {
						m.apply(all...)
						for _, c := range m.feed.latest.Load().changes {
							if c.Version > end && !c.IsRefresh() {
								changed = append(changed, describe([]state.ItemChange{c}))
							}
						}
					}
					for _, f := range followers {
						if random.IntN(1+f.slow) == 0 {
							f.follow(t)
						}
					}
				}
				for _, f := range followers {
					f.follow(t)
					want := make(map[string]uint64)
					for name, i := range state.Each(m.store.State().Items.ByName, []byte(f.w.prefix)) {
						want[string(name)] = i.Version
					}
					if diff := gocmp.Diff(want, f.has); diff != "" {
						t.Errorf("%q has in the end (-want +got):\n%s", f.w.prefix, diff)
					}
				}
				if !followers[0].skips && !slices.Equal(followers[0].all, changed) {
					t.Errorf("the fast one has yielded %d changes of %d", len(followers[0].all), len(changed))
				}
			})
		})
	}
}

// follower is a watcher and what it has yielded.
type follower struct {
	w     *Watcher
	slow  int  // it looks at one of so many changes
	skips bool // a snapshot came
	at    uint64
	has   map[string]uint64 // versions by name
	all   []string
}

func (f *follower) follow(t *testing.T) {
	t.Helper()
	synctest.Wait()
	for {
		all, changed, err := f.w.Next()
		if err != nil {
			t.Fatalf("%q: %v", f.w.prefix, err)
		}
		if changed != nil {
			return
		}
		if !slices.IsSortedFunc(all, func(a, b state.ItemChange) int { return cmp.Compare(a.Version, b.Version) }) || all[0].Version <= f.at {
			t.Fatalf("%q yields %s behind entry %d", f.w.prefix, describe(all), f.at)
		}
		f.at = all[len(all)-1].Version
		for _, c := range all {
			f.all = append(f.all, describe([]state.ItemChange{c}))
			if f.has[c.Name] = c.Version; c.Item == nil {
				delete(f.has, c.Name)
			}
		}
	}
}

// What is gone from the list is not kept in memory. A refresh counts nothing.
func TestFeedForgets(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	run(t, func(t *testing.T, m *machine) {
		for range maxRecent {
			m.apply(put("x"))
		}
		synctest.Wait()
		const size = maxRecentBytes / 16
		var all []weak.Pointer[state.Item]
		for range 200 {
			m.apply(state.WriteItems{Bucket: "b", MaxRecords: 1 << 30, Ops: []state.ItemOp{{Key: "x", Put: &state.ItemPut{Value: make([]byte, size), TTL: 1}}}})
			all = append(all, weak.Make(m.store.State().Items.Get("b\x00x")))
			synctest.Wait()
		}
		runtime.GC()
		alive := 0
		for _, p := range all {
			if p.Value() != nil {
				alive++
			}
		}
		if alive > 3*16 {
			t.Errorf("%d large values are in memory, and the list may have 16", alive)
		}
		before := m.feed.latest.Load().bytes
		m.apply(refresh("x"))
		if after := m.feed.latest.Load().bytes; after != before {
			t.Errorf("a refresh counts %d bytes", after-before)
		}
	})
}

// All changes of the newest entry stay, however large they are, although nobody has been told yet.
func TestLargeEntry(t *testing.T) {
	run(t, func(t *testing.T, m *machine) {
		w, _ := m.feed.Watch("b\x00", false)
		defer w.Close()
		c := state.WriteItems{Bucket: "b", MaxRecords: 1 << 30}
		for _, key := range []string{"x", "y", "z"} {
			c.Ops = append(c.Ops, state.ItemOp{Key: key, Put: &state.ItemPut{Value: make([]byte, maxBehind*maxRecentBytes/2)}})
		}
		m.apply(put("first"))
		m.apply(c)
		if got, want := len(m.feed.latest.Load().changes), 3; got != want {
			t.Errorf("%d changes are kept, want %d", got, want)
		}
		if got, want := next(t, w), "first@1 x@2 y@2 z@2"; got != want {
			t.Errorf("it yields %q, want %q", got, want)
		}
	})
}
