package expiry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/changes"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// bench is a state machine and a duty.
type bench struct {
	t     *testing.T
	store *applied.Store
	feed  *changes.Feed
	duty  *Duty

	mu      sync.Mutex // of what follows, and of the order of entries
	expired []string   // what was deleted, in words
	fail    error      // of the next attempts
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, store: applied.New()}
	b.feed = changes.New(b.store)
	b.duty = New(Config{Log: slog.New(slog.DiscardHandler), Store: b.store, Feed: b.feed})
	return b
}

// apply applies a change as the next entry.
func (b *bench) apply(change state.Change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.applyLocked(change)
}

func (b *bench) applyLocked(change state.Change) {
	var fx state.Effects
	s := b.store.State()
	s, _ = s.Apply(s.Index+1, &state.Command{Change: change}, &fx)
	b.store.Publish(s)
	b.feed.Add(fx.Items)
}

func (b *bench) put(key string, ttl time.Duration) {
	b.apply(state.WriteItems{Bucket: "b", MaxRecords: 1 << 20, Ops: []state.ItemOp{{Key: key, Put: &state.ItemPut{TTL: ttl}}}})
}

// expire does what the leader proposes.
func (b *bench) expire(_ context.Context, items []state.ItemAt) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return b.fail
	}
	var keys []string
	for _, i := range items {
		keys = append(keys, state.ItemKey(i.Name))
	}
	slices.Sort(keys)
	b.expired = append(b.expired, strings.Join(keys, "+"))
	b.applyLocked(state.ExpireItems{Items: items})
	return nil
}

// take returns what was deleted since the last call.
func (b *bench) take() string {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	all := strings.Join(b.expired, " ")
	b.expired = nil
	return all
}

func (b *bench) setFail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = err
}

// lead runs the duty until stop is called.
func (b *bench) lead() (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	var both sync.WaitGroup
	both.Go(func() { b.feed.Run(ctx) })
	both.Go(func() { b.duty.run(ctx, b.expire) })
	synctest.Wait()
	return func() {
		cancel()
		both.Wait()
	}
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.put("before", 5*time.Second)
		b.put("lasting", 0)
		time.Sleep(4 * time.Second) // a leader counts from the beginning of its term
		stop := b.lead()
		b.put("later", 6*time.Second)
		b.put("same", 6*time.Second)
		b.put("written", 5*time.Second)
		b.put("refreshed", 5*time.Second)
		b.put("shorter", time.Hour)
		for _, step := range []struct {
			after time.Duration
			do    func()
			want  string
		}{
			{4 * time.Second, func() {
				b.put("written", 5*time.Second)
				b.apply(state.WriteItems{Bucket: "b", Ops: []state.ItemOp{{Key: "refreshed", Refresh: true}}})
				b.put("shorter", time.Second/2)
			}, ""},
			{time.Second / 2, nil, "shorter"},
			{time.Second/2 - 1, nil, ""},
			{1, nil, "before"},
			{time.Second - 1, nil, ""},
			{1, nil, "later+same"},
			{3 * time.Second, nil, "refreshed+written"},
			{time.Hour, nil, ""},
		} {
			time.Sleep(step.after)
			if step.do != nil {
				step.do()
			}
			if got := b.take(); got != step.want {
				t.Errorf("after %v more: %q expired, want %q", step.after, got, step.want)
			}
		}
		stop()
	})
}

// What could not be deleted is tried again, unless it was written meanwhile.
func TestExpiryTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.lead()()
		b.put("x", time.Second)
		b.put("y", time.Second)
		b.setFail(errors.New("no leader"))
		time.Sleep(time.Second + pause/2)
		synctest.Wait()
		b.put("y", time.Minute)
		b.setFail(nil)
		time.Sleep(pause)
		if got := b.take(); got != "x" {
			t.Errorf("%q expired, want x", got)
		}
	})
}

// Many entries at once go in commands of a bounded size.
func TestExpiryOfMany(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.lead()()
		const n = 2*maxExpire + 5
		for i := range n {
			b.put(fmt.Sprint("k", i), time.Second)
		}
		time.Sleep(2 * time.Second)
		var sizes []int
		for _, batch := range strings.Fields(b.take()) {
			sizes = append(sizes, len(strings.Split(batch, "+")))
		}
		if !slices.Equal(sizes, []int{maxExpire, maxExpire, 5}) || b.store.State().Items.ByName.Len() != 0 {
			t.Errorf("they were deleted in commands of %v", sizes)
		}
	})
}

// The queue has each item once, however often it is renewed, and none that is gone.
func TestQueueIsSmall(t *testing.T) {
	q, now := newQueue(), time.Now()
	for i := range uint64(100) {
		q.observe("x", &state.Item{Renewed: i, TTL: time.Hour}, now.Add(time.Duration(i)))
		q.observe("y", &state.Item{Renewed: i, TTL: time.Hour}, now)
	}
	if len(q.heap) != 2 || len(q.byName) != 2 {
		t.Errorf("two items take %d places", len(q.heap))
	}
	q.observe("y", nil, now)
	if end, ok := q.next(); !ok || !end.Equal(now.Add(time.Hour+99)) {
		t.Errorf("the earliest end is %v, %v", end, ok)
	}
	q.observe("x", &state.Item{Renewed: 101}, now)
	if _, ok := q.next(); ok || len(q.byName) != 0 {
		t.Error("an item that does not expire is in the queue")
	}
	// What is known goes on when the queue begins again, and what is gone is dropped.
	q.observe("gone", &state.Item{Renewed: 1, TTL: time.Second}, now)
	b := newBench(t)
	b.put("k", time.Hour)
	q.restart(b.store.State(), now)
	q.restart(b.store.State(), now.Add(time.Minute))
	if end, _ := q.next(); !end.Equal(now.Add(time.Hour)) || len(q.heap) != 1 {
		t.Errorf("%d items, the first ends %v after the beginning", len(q.heap), end.Sub(now))
	}
}
