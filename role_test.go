package flotilla_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// stage is who holds what, as the holders themselves see it.
type stage struct {
	t *testing.T

	mu     sync.Mutex
	on     map[string]int    // node by role
	fences map[string]uint64 // the last one by role
	log    []string
	last   time.Time // when somebody last came or went
}

func newStage(t *testing.T) *stage {
	return &stage{t: t, on: make(map[string]int), fences: make(map[string]uint64)}
}

func (s *stage) enter(role string, node int, t flotilla.Tenure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, ok := s.on[role]; ok {
		s.t.Errorf("node %d holds %s while node %d does", node, role, other)
	}
	if t.Fence() <= s.fences[role] {
		s.t.Errorf("the fence of %s goes from %d to %d", role, s.fences[role], t.Fence())
	}
	if left := time.Until(t.Deadline()); left <= 0 {
		s.t.Errorf("node %d begins to hold %s %v after its deadline", node, role, -left)
	}
	s.on[role], s.fences[role], s.last = node, t.Fence(), time.Now()
	s.log = append(s.log, fmt.Sprintf("%s:%d", role, node))
}

func (s *stage) leave(role string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.on, role)
	s.last = time.Now()
}

// holders returns the node of each role now.
func (s *stage) holders() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]int)
	for r, n := range s.on {
		out[r] = n
	}
	return out
}

func (s *stage) since() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// play holds a role on a node again and again until ctx ends.
func (s *stage) play(ctx context.Context, c *clustertest.Cluster, node int, r flotilla.Role) {
	s.repeat(ctx, node, r.Name, func(f func(context.Context, flotilla.Tenure) error) error {
		return c.Nodes[node].Hold(ctx, r, f)
	})
}

// playPublic is play for a public role.
func (s *stage) playPublic(ctx context.Context, c *clustertest.Cluster, node int, r flotilla.Role) {
	s.repeat(ctx, node, r.Name, func(f func(context.Context, flotilla.Tenure) error) error {
		return c.Nodes[node].HoldPublic(ctx, r, hold.Public{}, f)
	})
}

// repeat calls holds, which holds a role on a node, again and again until ctx ends.
func (s *stage) repeat(ctx context.Context, node int, role string, holds func(f func(context.Context, flotilla.Tenure) error) error) {
	play := func(ctx context.Context, t flotilla.Tenure) error {
		s.enter(role, node, t)
		<-ctx.Done()
		if time.Now().After(t.Deadline()) {
			s.t.Errorf("node %d learns that it has lost %s %v after its deadline", node, role, time.Since(t.Deadline()))
		}
		s.leave(role)
		return ctx.Err()
	}
	go func() {
		for ctx.Err() == nil {
			if errors.Is(holds(play), flotilla.ErrClosed) {
				return
			}
		}
	}()
}

func wantHolders(t *testing.T, s *stage, want map[string]int) {
	t.Helper()
	if diff := cmp.Diff(want, s.holders()); diff != "" {
		t.Errorf("who holds what:\n%s", diff)
	}
}

func TestHoldInOrder(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		s := newStage(t)
		var wg sync.WaitGroup
		for i := range 9 {
			wg.Go(func() {
				err := c.Nodes[i%3].Hold(t.Context(), flotilla.Role{Name: "r"}, func(_ context.Context, tenure flotilla.Tenure) error {
					s.enter("r", i%3, tenure)
					time.Sleep(time.Second)
					s.leave("r")
					return fmt.Errorf("from %d", i)
				})
				if err == nil || err.Error() != fmt.Sprintf("from %d", i) {
					t.Errorf("the error of f comes out as %v", err)
				}
			})
			time.Sleep(50 * time.Millisecond)
		}
		wg.Wait()
		want := []string{"r:0", "r:1", "r:2", "r:0", "r:1", "r:2", "r:0", "r:1", "r:2"}
		if diff := cmp.Diff(want, s.log); diff != "" {
			t.Errorf("order:\n%s", diff)
		}
	})
}

// The next one has the role when the holder has let go, at once if it can say so, else when its
// lease is over.
func TestHandOver(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, test := range []struct {
		name  string
		lose  func(c *clustertest.Cluster, holder int, cancel func())
		limit time.Duration
	}{
		{"returns", func(_ *clustertest.Cluster, _ int, cancel func()) { cancel() }, 50 * time.Millisecond},
		{"shut down", func(c *clustertest.Cluster, i int, _ func()) { c.Stop(i) }, 50 * time.Millisecond},
		{"killed", func(c *clustertest.Cluster, i int, _ func()) { c.Kill(i) }, 650 * time.Millisecond},
		{"cut off", func(c *clustertest.Cluster, i int, _ func()) { c.Isolate(i) }, 750 * time.Millisecond},
		{"leaves", func(c *clustertest.Cluster, i int, _ func()) { c.Leave(i) }, 50 * time.Millisecond},
	} {
		for _, leads := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, leads %v", test.name, leads), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := clustertest.New(t, 3, nil)
					c.Settle()
					holder := c.Leader()
					if !leads {
						holder = (holder + 1) % 3
					}
					next := (holder + 1) % 3
					s := newStage(t)
					ctx, cancel := context.WithCancel(t.Context())
					s.play(ctx, c, holder, flotilla.Role{Name: "r"})
					time.Sleep(100 * time.Millisecond)
					s.play(t.Context(), c, next, flotilla.Role{Name: "r"})
					time.Sleep(time.Second)
					wantHolders(t, s, map[string]int{"r": holder})
					start := time.Now()
					test.lose(c, holder, cancel)
					time.Sleep(3 * time.Second)
					wantHolders(t, s, map[string]int{"r": next})
					if took := s.since().Sub(start); took > test.limit {
						t.Errorf("the next one holds the role after %v, want at most %v", took, test.limit)
					}
					cancel()
				})
			})
		}
	}
}

func TestPriority(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, test := range []struct {
		name   string
		better flotilla.Role
		before int           // who holds it 10 ms before the hand-over is due
		after  time.Duration // when it is due; 0: never
	}{
		{"at once", flotilla.Role{Priority: 2}, 0, 50 * time.Millisecond},
		{"after a delay", flotilla.Role{Priority: 2, PreemptDelay: 5 * time.Second}, 0, 5050 * time.Millisecond},
		{"not at all", flotilla.Role{Priority: 2, NoPreempt: true}, 0, 0},
		{"not if it is the same", flotilla.Role{Priority: 1}, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clustertest.New(t, 3, nil)
				c.Settle()
				s := newStage(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				s.play(ctx, c, 0, flotilla.Role{Name: "r", Priority: 1})
				time.Sleep(100 * time.Millisecond)
				s.play(ctx, c, 2, flotilla.Role{Name: "r"})
				time.Sleep(100 * time.Millisecond)
				r := test.better
				r.Name = "r"
				s.play(ctx, c, 1, r)
				start := time.Now()
				time.Sleep(8 * time.Second)
				if test.after == 0 {
					wantHolders(t, s, map[string]int{"r": 0})
					c.Kill(0)
					time.Sleep(time.Second)
				} else if took := s.since().Sub(start); took > test.after || took < test.better.PreemptDelay {
					t.Errorf("the hand-over comes after %v, want %v", took, test.after)
				}
				wantHolders(t, s, map[string]int{"r": 1})
			})
		})
	}
}

// Three addresses on three nodes: one each, and so again when a node comes back.
func TestGroupSpreads(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		s := newStage(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		play := func(nodes ...int) {
			for _, name := range []string{"x", "y", "z"} {
				for _, i := range nodes {
					s.play(ctx, c, i, flotilla.Role{Name: name, Group: "g", PreemptDelay: 2 * time.Second})
				}
			}
		}
		spread := func() []int {
			var counts [3]int
			for _, n := range s.holders() {
				counts[n]++
			}
			return counts[:]
		}
		play(0)
		time.Sleep(time.Second)
		wantHolders(t, s, map[string]int{"x": 0, "y": 0, "z": 0})
		play(1, 2)
		time.Sleep(10 * time.Second)
		if diff := cmp.Diff([]int{1, 1, 1}, spread()); diff != "" {
			t.Errorf("with three nodes:\n%s", diff)
		}
		changes := len(s.log)
		time.Sleep(time.Minute)
		if len(s.log) != changes {
			t.Errorf("roles wander: %v", s.log[changes:])
		}
		c.Kill(1)
		s.mu.Lock()
		for r, n := range s.on { // what the dead did is over
			if n == 1 {
				delete(s.on, r)
			}
		}
		s.mu.Unlock()
		time.Sleep(time.Second)
		if got := spread(); !slices.Equal(got, []int{2, 0, 1}) && !slices.Equal(got, []int{1, 0, 2}) {
			t.Errorf("with two nodes: %v", got)
		}
		c.Restart(1)
		c.Settle()
		play(1)
		time.Sleep(10 * time.Second)
		if diff := cmp.Diff([]int{1, 1, 1}, spread()); diff != "" {
			t.Errorf("with three nodes again:\n%s", diff)
		}
	})
}

// A contender that is better only for a while does not disturb anybody, and one that leaves is
// forgotten.
func TestWaiterLeaves(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		s := newStage(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s.play(ctx, c, 0, flotilla.Role{Name: "r"})
		time.Sleep(100 * time.Millisecond)
		short, end := context.WithTimeout(ctx, time.Second)
		defer end()
		err := c.Nodes[1].Hold(short, flotilla.Role{Name: "r", Priority: 1, PreemptDelay: 2 * time.Second}, func(context.Context, flotilla.Tenure) error {
			t.Error("it came to hold the role")
			return nil
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who leaves gets %v", err)
		}
		time.Sleep(5 * time.Second)
		wantHolders(t, s, map[string]int{"r": 0})
		cancel()
		time.Sleep(time.Second)
		if err := c.Nodes[2].Hold(t.Context(), flotilla.Role{Name: "r"}, func(context.Context, flotilla.Tenure) error { return nil }); err != nil {
			t.Error(err)
		}
	})
}

func TestPanicGivesTheRoleUp(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 2, nil)
		c.Settle()
		func() {
			defer func() {
				if p := recover(); p != "mine" {
					t.Errorf("the panic comes out as %v", p)
				}
			}()
			c.Nodes[0].Hold(t.Context(), flotilla.Role{Name: "r"}, func(context.Context, flotilla.Tenure) error { panic("mine") })
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := c.Nodes[1].Hold(ctx, flotilla.Role{Name: "r"}, func(context.Context, flotilla.Tenure) error { return nil }); err != nil {
			t.Errorf("after the panic: %v", err)
		}
	})
}

// One who does not hand over is passed over after his time, and his writes are refused from then
// on.
func TestYieldIsBounded(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		started := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- c.Nodes[0].Hold(t.Context(), flotilla.Role{Name: "r"}, func(ctx context.Context, tenure flotilla.Tenure) error {
				close(started)
				<-ctx.Done()
				if cause := context.Cause(ctx); !errors.Is(cause, flotilla.ErrYielded) {
					t.Errorf("the cause is %v", cause)
				}
				write := context.WithoutCancel(ctx)
				if err := c.Nodes[0].Storage().Store(write, "k", []byte("while handing over")); err != nil {
					t.Errorf("while it is handed over: %v", err)
				}
				time.Sleep(11 * time.Second) // more than the time to hand over
				if time.Until(tenure.Deadline()) > 0 {
					t.Error("the tenure goes on after the time to hand over")
				}
				err := c.Nodes[0].Storage().Store(write, "k", []byte("too late"))
				if !errors.Is(err, flotilla.ErrLost) {
					t.Errorf("a late write gets %v, want ErrLost", err)
				}
				if err := c.Nodes[0].Storage().Delete(write, "k"); !errors.Is(err, flotilla.ErrLost) {
					t.Errorf("a late delete gets %v, want ErrLost", err)
				}
				return nil
			})
		}()
		<-started
		start := time.Now()
		err := c.Nodes[1].Hold(t.Context(), flotilla.Role{Name: "r", Priority: 1}, func(context.Context, flotilla.Tenure) error {
			if took := time.Since(start); took < 10*time.Second || took > 10100*time.Millisecond {
				t.Errorf("the better one holds it after %v", took)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, flotilla.ErrYielded) {
			t.Errorf("Hold says %v, want ErrYielded", err)
		}
		wantEverywhere(t, c, "k", "while handing over")
	})
}

// A holder that is cut off hears of it before its deadline, in time to stop; a write that it still
// tries is refused when it is back.
func TestLostHolder(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, timing := range []flotilla.Timing{flotilla.LAN, flotilla.Fast, flotilla.WAN, flotilla.Turbo} {
		t.Run(timing.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { cfg.Timing = timing })
				c.Settle()
				leader := c.Leader()
				started := make(chan struct{})
				done := make(chan error, 1)
				go func() {
					done <- c.Nodes[leader].Hold(t.Context(), flotilla.Role{Name: "r"}, func(ctx context.Context, tenure flotilla.Tenure) error {
						close(started)
						<-ctx.Done()
						left := time.Until(tenure.Deadline())
						if cause := context.Cause(ctx); !errors.Is(cause, flotilla.ErrLost) || left <= 0 {
							t.Errorf("the cause is %v, %v before the deadline", cause, left)
						}
						return c.Nodes[leader].Storage().Store(context.WithoutCancel(ctx), "k", []byte("late"))
					})
				}()
				<-started
				c.Isolate(leader)
				time.Sleep(10 * time.Second)
				if err := c.Nodes[leader].Ready(expired(t)); !errors.Is(err, context.Canceled) {
					t.Errorf("without a lease the node says that it is ready: %v", err)
				}
				c.Heal()
				c.Settle()
				if err := <-done; !errors.Is(err, flotilla.ErrLost) {
					t.Errorf("Hold says %v, want ErrLost", err)
				}
				if _, err := c.Nodes[(leader+1)%3].Storage().Load(t.Context(), "k"); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the late write: %v, want that it does not exist", err)
				}
			})
		})
	}
}

// expired is a context that is over.
func expired(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestHoldMistakes(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 1, nil)
		c.Settle()
		nothing := func(context.Context, flotilla.Tenure) error { t.Error("it is held"); return nil }
		for _, name := range []string{"", string(make([]byte, flotilla.MaxName+1))} {
			if err := c.Nodes[0].Hold(t.Context(), flotilla.Role{Name: name}, nothing); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("a name of %d bytes: %v", len(name), err)
			}
		}
		c.Stop(0)
		if err := c.Nodes[0].Hold(t.Context(), flotilla.Role{Name: "r"}, nothing); !errors.Is(err, flotilla.ErrClosed) {
			t.Errorf("on a closed node: %v", err)
		}
	})
}
