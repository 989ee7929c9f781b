package flotilla_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// looper is a node whose HoldLoop a test follows.
type looper struct {
	*flotilla.Node
	c *clustertest.Cluster

	mu     sync.Mutex
	begins []time.Duration // of tenures, since the call of HoldLoop
	logged []string        // warnings about HoldLoop
}

// newLooper makes a cluster of three and returns its node 0.
func newLooper(t *testing.T) *looper {
	l := new(looper)
	l.c = clustertest.New(t, 3, func(i int, cfg *flotilla.Config) {
		if i > 0 {
			return
		}
		cfg.Logger = testlog.To(testlog.WriterFunc(func(line []byte) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if text := string(line); strings.Contains(text, "holding a role") || strings.Contains(text, "the holder of a role") {
				l.logged = append(l.logged, text)
			}
		}), slog.LevelWarn)
	})
	l.Node = l.c.Nodes[0]
	l.c.Settle()
	return l
}

// run calls HoldLoop on a goroutine, with a function that gets the number of its tenure, from 1 on.
func (l *looper) run(ctx context.Context, f func(ctx context.Context, n int) error) <-chan error {
	start, ended := time.Now(), make(chan error, 1)
	go func() {
		ended <- l.HoldLoop(ctx, flotilla.Role{Name: "r"}, func(ctx context.Context, _ flotilla.Tenure) error {
			l.mu.Lock()
			l.begins = append(l.begins, time.Since(start))
			n := len(l.begins)
			l.mu.Unlock()
			return f(ctx, n)
		})
	}()
	return ended
}

// pauses returns the times between the beginnings of tenures, in whole seconds.
func (l *looper) pauses() (seconds []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, at := range l.begins[1:] {
		seconds = append(seconds, int((at-l.begins[i]).Round(time.Second)/time.Second))
	}
	return seconds
}

// warnings returns what was logged.
func (l *looper) warnings() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.logged
}

// Pauses grow with each error. A tenure that was good, or long, makes them short again.
func TestHoldLoopPauses(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	broken := errors.New("out of paper")
	fails := func(context.Context, int) error { return broken }
	for _, test := range flotilla.Some(t, []struct {
		name     string
		f        func(ctx context.Context, n int) error
		want     []int // seconds between the first tenures
		warnings int   // for these
	}{
		{"errors", fails, []int{1, 2, 4, 8, 16, 32, 60, 60}, 9},
		{"an error that looks like one of Hold", func(context.Context, int) error { return fs.ErrInvalid }, []int{1, 2, 4}, 4},
		{"an error that looks like the end", func(context.Context, int) error { return context.Canceled }, []int{1, 2, 4}, 4},
		{"an error that looks like a lost lease", func(context.Context, int) error { return flotilla.ErrLost }, []int{1, 2, 4}, 4},
		{"done for now", func(context.Context, int) error { return nil }, []int{1, 1, 1, 1}, 0},
		{"a good tenure between errors", func(_ context.Context, n int) error {
			if n == 4 {
				return nil
			}
			return broken
		}, []int{1, 2, 4, 1, 1, 2}, 6},
		{"a long tenure between errors", func(_ context.Context, n int) error {
			if n == 4 {
				time.Sleep(time.Minute)
			}
			return broken
		}, []int{1, 2, 4, 61, 2, 4}, 7},
	}, 2) {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLooper(t)
				ctx, cancel := context.WithCancel(t.Context())
				tenures := len(test.want) + 1
				ended := l.run(ctx, func(ctx context.Context, n int) error {
					if n > tenures {
						<-ctx.Done()
						return nil
					}
					return test.f(ctx, n)
				})
				for _, pause := range test.want {
					time.Sleep(time.Duration(pause) * time.Second)
				}
				time.Sleep(2 * time.Minute) // for more pauses than there should be
				cancel()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Errorf("HoldLoop says %v", err)
				}
				if diff := cmp.Diff(test.want, l.pauses()[:len(test.want)]); diff != "" {
					t.Errorf("pauses:\n%s", diff)
				}
				if n := len(l.warnings()); n != test.warnings {
					t.Errorf("%d warnings, want %d: %q", n, test.warnings, l.warnings())
				}
			})
		})
	}
}

// The log says which role, why, and when the next attempt is.
func TestHoldLoopLogs(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		l := newLooper(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := l.run(ctx, func(ctx context.Context, n int) error {
			if n < 3 {
				return fmt.Errorf("attempt %d", n)
			}
			<-ctx.Done()
			return errors.New("cannot clean up")
		})
		time.Sleep(5 * time.Second)
		cancel()
		<-ended
		var got []string
		for _, line := range l.warnings() {
			_, text, _ := strings.Cut(strings.TrimSpace(line), "msg=")
			got = append(got, text)
		}
		want := []string{
			`"holding a role has failed; it is claimed again after a pause" role=r node=n0 err="attempt 1" pause=1s`,
			`"holding a role has failed; it is claimed again after a pause" role=r node=n0 err="attempt 2" pause=2s`,
			`"the holder of a role has failed at its end" role=r node=n0 err="cannot clean up"`,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// A role that was handed over is claimed again at once, and that is no error.
func TestHoldLoopAfterYield(t *testing.T) {
	synctest.Parallel(t)
	for _, test := range []struct {
		name string
		end  func(l *looper, ctx context.Context) error
	}{
		{"nil", func(*looper, context.Context) error { return nil }},
		{"the error of the context", func(_ *looper, ctx context.Context) error { return ctx.Err() }},
		{"the cause", func(_ *looper, ctx context.Context) error { return fmt.Errorf("because %w", context.Cause(ctx)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLooper(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				l.run(ctx, func(ctx context.Context, _ int) error {
					<-ctx.Done()
					return test.end(l, ctx)
				})
				time.Sleep(time.Second)
				err := l.c.Nodes[1].Hold(ctx, flotilla.Role{Name: "r", Priority: 1}, func(context.Context, flotilla.Tenure) error {
					time.Sleep(100 * time.Millisecond) // less than any pause
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond)
				if holder := l.Holder("r"); !holder.Own {
					t.Errorf("the role is held by %+v", holder)
				}
				if got := l.warnings(); len(got) > 0 {
					t.Errorf("logged: %q", got)
				}
			})
		})
	}
}

// Two nodes that are done after each tenure take turns.
func TestHoldLoopTakesTurns(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var mu sync.Mutex
		turns := make(map[int]int)
		var wg sync.WaitGroup
		for i := range c.Nodes {
			wg.Go(func() {
				err := c.Nodes[i].HoldLoop(ctx, flotilla.Role{Name: "r"}, func(context.Context, flotilla.Tenure) error {
					mu.Lock()
					turns[i]++
					mu.Unlock()
					time.Sleep(time.Second)
					return nil
				})
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("HoldLoop says %v", err)
				}
			})
		}
		wg.Wait()
		for i := range c.Nodes {
			if turns[i] < 6 {
				t.Errorf("node %d has had %d turns of about 20", i, turns[i])
			}
		}
	})
}

// A node that was cut off, and has lost its lease, claims the role again when it is back.
func TestHoldLoopAfterLoss(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		l := newLooper(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		l.run(ctx, func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return l.Storage().Store(context.WithoutCancel(ctx), "k", []byte("late")) // which gets ErrLost
		})
		time.Sleep(time.Second)
		fence := l.Holder("r").Fence
		l.c.Isolate(0)
		time.Sleep(10 * time.Second)
		if holder := l.Holder("r"); holder != (hold.Holder{}) {
			t.Errorf("without a lease, the role is held by %+v", holder)
		}
		l.c.Heal()
		l.c.Settle()
		time.Sleep(time.Second)
		if holder := l.Holder("r"); !holder.Own || holder.Fence <= fence {
			t.Errorf("the role is held by %+v, and the fence was %d", holder, fence)
		}
		if got := l.warnings(); len(got) > 0 {
			t.Errorf("logged: %q", got)
		}
	})
}

// HoldLoop returns why it ends, also in a pause and while it waits for the role.
func TestHoldLoopEnds(t *testing.T) {
	synctest.Parallel(t)
	enough := errors.New("enough")
	for _, end := range []struct {
		name string
		end  func(l *looper, cancel context.CancelCauseFunc)
		want error
	}{
		{"cancelled", func(_ *looper, cancel context.CancelCauseFunc) { cancel(enough) }, enough},
		{"shut down", func(l *looper, _ context.CancelCauseFunc) { l.c.Stop(0) }, flotilla.ErrClosed},
		{"closed", func(l *looper, _ context.CancelCauseFunc) { l.c.Kill(0) }, flotilla.ErrClosed},
	} {
		for name, f := range map[string]func(ctx context.Context, n int) error{
			"while it holds": func(ctx context.Context, _ int) error { <-ctx.Done(); return nil },
			"in a pause":     func(context.Context, int) error { return errors.New("out of paper") },
			"while it waits": nil,
		} {
			t.Run(end.name+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLooper(t)
					ctx, cancel := context.WithCancelCause(t.Context())
					defer cancel(nil)
					if f == nil {
						other := &looper{Node: l.c.Nodes[1], c: l.c}
						other.run(ctx, func(ctx context.Context, _ int) error { <-ctx.Done(); return nil })
						time.Sleep(100 * time.Millisecond)
					}
					ended := l.run(ctx, f)
					time.Sleep(10 * time.Second)
					start := time.Now()
					end.end(l, cancel)
					if err := <-ended; !errors.Is(err, end.want) {
						t.Errorf("HoldLoop says %v, want %v", err, end.want)
					}
					if took := time.Since(start); took > time.Second {
						t.Errorf("that took %v", took)
					}
				})
			})
		}
	}
}

// What no attempt can mend is returned at once.
func TestHoldLoopMistakes(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		l := newLooper(t)
		witness := l.c.Add(func(_ int, cfg *flotilla.Config) { cfg.Witness = true })
		l.c.Settle()
		nothing := func(context.Context, flotilla.Tenure) error { t.Error("it is held"); return nil }
		if err := l.HoldLoop(t.Context(), flotilla.Role{}, nothing); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("a role without a name: %v", err)
		}
		err := l.c.Nodes[witness].HoldLoop(t.Context(), flotilla.Role{Name: "r"}, nothing)
		if err == nil || !strings.Contains(err.Error(), "this node is a witness") {
			t.Errorf("on a witness: %v", err)
		}
	})
}

// Every node knows who holds a role, and where that node is.
func TestHolder(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		held, ended := make(chan uint64, 1), make(chan error, 1)
		go func() {
			ended <- c.Nodes[1].Hold(ctx, flotilla.Role{Name: "r"}, func(ctx context.Context, t flotilla.Tenure) error {
				held <- t.Fence()
				<-ctx.Done()
				return nil
			})
		}()
		want := hold.Holder{ID: c.Nodes[1].Status().ID, Name: "n1", Addr: "n1:7373", Fence: <-held}
		time.Sleep(time.Second)
		for i, n := range c.Nodes {
			want.Own = i == 1
			if diff := cmp.Diff(want, n.Holder("r")); diff != "" {
				t.Errorf("node %d:\n%s", i, diff)
			}
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Hold says %v", err)
		}
		time.Sleep(time.Second)
		for i, n := range c.Nodes {
			if got := n.Holder("r"); got != (hold.Holder{}) {
				t.Errorf("node %d says that %+v holds it", i, got)
			}
		}
	})
}
