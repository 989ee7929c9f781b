package flotilla_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
)

var recoveries = newScheduled("recoveries", "recovery", 2, 12)

// meeting is how long two sides that can reach each other may take to meet: a look every five
// seconds, the time of a greeting, and a lease.
const meeting = 8 * time.Second

// One of three nodes is recovered, while the majority is dead, or only cut off, and comes back
// before, during or after that. Once both sides can reach each other for the time of a meeting,
// only the recovered one acknowledges writes, and only it holds the role. What it has acknowledged
// stays.
func TestRecoverySchedules(t *testing.T) {
	runSchedules(t, recoveries, 3, func(t *testing.T, random *rand.Rand) {
		r := &recovery{t: t, random: random, c: clustertest.New(t, 3, nil)}
		r.run()
	})
}

// recovery is one schedule. Node 0 is the survivor that is recovered.
type recovery struct {
	t      *testing.T
	random *rand.Rand
	c      *clustertest.Cluster
	met    time.Time // when both sides could reach each other, and ran

	mu    sync.Mutex
	acked map[string]time.Time // writes of the recovered side
	late  []string             // what the former majority did after the meeting
}

// pause lets up to d go by.
func (r *recovery) pause(d time.Duration) { time.Sleep(time.Duration(r.random.Int64N(int64(d)))) }

func (r *recovery) run() {
	c, t := r.c, r.t
	c.Settle()
	store(t, c.Nodes[0], "before", "1")
	r.pause(20 * time.Second)
	alive := r.random.IntN(2) == 0 // the majority is only cut off
	c.Isolate(0)
	r.pause(3 * time.Second)
	c.Kill(0)
	if !alive {
		c.Kill(1)
		c.Kill(2)
		c.Heal()
	}
	r.pause(5 * time.Second)
	recovered(t, c, 0, true)
	if r.random.IntN(3) == 0 {
		c.Heal() // before the recovered node runs
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var busy sync.WaitGroup
	if alive {
		busy.Go(func() { r.watch(ctx, c.Nodes[1]) })
		busy.Go(func() { r.watch(ctx, c.Nodes[2]) })
	}
	c.Restart(0)
	busy.Go(func() { r.write(ctx, c.Nodes[0]) })
	r.pause(20 * time.Second)
	if !alive {
		for _, i := range []int{1, 2} {
			c.Restart(i)
			n := c.Nodes[i]
			busy.Go(func() { r.watch(ctx, n) })
			r.pause(2 * time.Second)
		}
	}
	c.Heal()
	r.mu.Lock()
	r.met = time.Now()
	r.mu.Unlock()
	time.Sleep(meeting + 10*time.Second)
	cancel()
	busy.Wait()
	r.check(alive)
}

// write stores values on the recovered node, and remembers those that were acknowledged.
func (r *recovery) write(ctx context.Context, n *flotilla.Node) {
	for i := 0; ctx.Err() == nil; i++ {
		key := fmt.Sprint("new/", i)
		if n.Storage().Store(ctx, key, []byte("1")) == nil {
			r.mu.Lock()
			if r.acked == nil {
				r.acked = make(map[string]time.Time)
			}
			r.acked[key] = time.Now()
			r.mu.Unlock()
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// watch has a node of the former majority write and hold a role, and notes what succeeds after the
// meeting. A node that has joined the recovered cluster may do both.
func (r *recovery) watch(ctx context.Context, n *flotilla.Node) {
	former := func() bool { return n.Status().SetAside == "" }
	note := func(what string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.met.IsZero() && time.Since(r.met) > meeting && former() {
			r.late = append(r.late, fmt.Sprintf("%s %s %v after the meeting", n.Status().Name, what, time.Since(r.met)))
		}
	}
	var holding sync.WaitGroup
	holding.Go(func() {
		n.Hold(ctx, flotilla.Role{Name: "r"}, func(ctx context.Context, _ flotilla.Tenure) error {
			for ctx.Err() == nil {
				note("holds the role")
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		})
	})
	for ctx.Err() == nil {
		if n.Storage().Store(ctx, "old", []byte("1")) == nil {
			note("writes")
		}
		time.Sleep(300 * time.Millisecond)
	}
	holding.Wait()
}

// check starts those again that have given up, and looks at what all have.
func (r *recovery) check(alive bool) {
	c, t := r.c, r.t
	for _, what := range r.late {
		t.Error(what)
	}
	if len(r.acked) == 0 {
		t.Error("the recovered side has written nothing")
	}
	for _, i := range []int{1, 2} {
		if c.Nodes[i].Status().Err != "" {
			c.Kill(i)
			c.Restart(i)
		}
	}
	c.Settle()
	for _, i := range []int{1, 2} {
		if c.Nodes[i].Status().SetAside == "" {
			t.Errorf("n%d goes on as it was; the majority was alive: %v", i, alive)
		}
	}
	for key := range r.acked {
		wantEverywhere(t, c, key, "1")
	}
	wantEverywhere(t, c, "before", "1")
}
