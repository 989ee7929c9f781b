package notify

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

var (
	errOver  = errors.New("over")
	errAgain = errors.New("not yet")
)

// ended returns a context that has ended because of errOver.
func ended(t *testing.T) context.Context {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errOver)
	return ctx
}

func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a, b, other Signal
		var looks, value atomic.Int32
		done := make(chan error, 1)
		go func() {
			done <- Until(t.Context(), func() bool { looks.Add(1); return value.Load() == 3 }, &a, &b)
		}()
		for i, tt := range []struct {
			notify *Signal
			value  int32
			looks  int32
		}{
			{&other, 0, 1}, // the one at the beginning
			{&a, 1, 2},
			{&b, 2, 3},
			{&other, 2, 3},
			{&a, 3, 4},
			{&a, 3, 4}, // it has returned
		} {
			synctest.Wait()
			value.Store(tt.value)
			tt.notify.Notify()
			synctest.Wait()
			if got := looks.Load(); got != tt.looks {
				t.Errorf("step %d: looked %d times, want %d", i, got, tt.looks)
			}
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := len(a.subscribers) + len(b.subscribers); n != 0 {
			t.Errorf("%d subscriptions are left", n)
		}
	})
}

// Until looks before it waits, whatever has happened to its context.
func TestUntilLooksFirst(t *testing.T) {
	if err := Until(ended(t), func() bool { return true }); err != nil {
		t.Errorf("a condition that is true: %v", err)
	}
	if err := Until(ended(t), func() bool { return false }); !errors.Is(err, errOver) {
		t.Errorf("one that is false: %v, want the cause of the context's end", err)
	}
}

// A change between a look and the wait after it is seen.
func TestNotifyWhileLooking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Signal
		looks := 0
		err := Until(t.Context(), func() bool {
			looks++
			if looks < 3 {
				s.Notify()
				s.Notify()
			}
			return looks == 3
		}, &s)
		if err != nil || looks != 3 {
			t.Errorf("looked %d times (%v), want 3", looks, err)
		}
	})
}

// Many goroutines change things and wait for each other's changes; none sleeps on.
func TestUntilConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers, rounds = 8, 200
		var s Signal
		var sum atomic.Int64
		var all sync.WaitGroup
		for range workers {
			all.Go(func() {
				for round := range int64(rounds) {
					sum.Add(1)
					s.Notify()
					Until(t.Context(), func() bool { return sum.Load() >= (round+1)*workers }, &s)
				}
			})
		}
		all.Wait()
		if got := sum.Load(); got != workers*rounds {
			t.Errorf("sum %d, want %d", got, workers*rounds)
		}
	})
}

func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Signal
		begun := time.Now()
		var at []time.Duration
		time.AfterFunc(2500*time.Millisecond, s.Notify)
		err := Retry(t.Context(), time.Second, func() error {
			at = append(at, time.Since(begun))
			if len(at) < 5 {
				return errAgain
			}
			return nil
		}, &s)
		if err != nil {
			t.Fatal(err)
		}
		// A Notify begins another pause.
		for i, want := range []time.Duration{0, 1000, 2000, 2500, 3500} {
			if at[i] != want*time.Millisecond {
				t.Errorf("attempt %d after %v, want %v", i, at[i], want*time.Millisecond)
			}
		}
	})
}

func TestRetryEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errOver)
		defer cancel()
		for _, tt := range []struct {
			pause    time.Duration
			ctx      context.Context
			attempts int
		}{
			{time.Second, ended(t), 1},
			{0, ctx, 1},
			{time.Second, ctx, 1}, // it ended under the previous one
		} {
			attempts := 0
			err := Retry(tt.ctx, tt.pause, func() error { attempts++; return errAgain })
			if !errors.Is(err, errOver) || !errors.Is(err, errAgain) {
				t.Errorf("pause %v: %v, want the cause and the last error", tt.pause, err)
			}
			if attempts != tt.attempts {
				t.Errorf("pause %v: %d attempts, want %d", tt.pause, attempts, tt.attempts)
			}
		}
	})
}

func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Signal
		begun := time.Now()
		// When each step says that it wants the next one, as seconds since the beginning; zero: not
		// by itself.
		plan := []time.Duration{10, 20, 0, 5, 100}
		var at []time.Duration
		time.AfterFunc(15*time.Second, s.Notify) // before the time that a step has asked for
		time.AfterFunc(60*time.Second, s.Notify)
		err := Loop(t.Context(), func() (next time.Time, done bool) {
			at = append(at, time.Since(begun)/time.Second)
			if plan[len(at)-1] != 0 {
				next = begun.Add(plan[len(at)-1] * time.Second)
			}
			return next, len(at) == len(plan)
		}, &s)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []time.Duration{0, 10, 15, 60, 60} {
			// the fourth asked for a time that was past
			if at[i] != want {
				t.Errorf("step %d after %ds, want %ds", i, at[i], want)
			}
		}
	})
}
