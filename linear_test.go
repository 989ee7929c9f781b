package flotilla_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// chaos is a cluster to which things happen, and a record of when they did.
type chaos struct {
	t      *testing.T
	c      *clustertest.Cluster
	random *rand.Rand
	start  time.Time
	// order in which calls begin and end: virtual times are often equal
	ticks atomic.Int64
	nodes []atomic.Pointer[flotilla.Node] // nil while a node is dead; for clients, who may not use c
	died  func(node int)                  // called when a node's process ends; nil: nobody asks

	cut   []bool // nodes that the fault at hand touches, or dead
	calls sync.WaitGroup

	mu  sync.Mutex // of what is recorded
	rec *history
}

func newChaos(t *testing.T, seed uint64, nodes int) *chaos {
	t.Helper()
	timing, lease := flotilla.LAN, 600*time.Millisecond
	if seed%2 == 1 {
		timing, lease = flotilla.Fast, 200*time.Millisecond
	}
	h := &chaos{t: t, random: rand.New(rand.NewPCG(seed, uint64(nodes))), rec: &history{lease: lease, cuts: make([][]window, nodes)}}
	h.c = clustertest.New(t, nodes, func(_ int, cfg *flotilla.Config) {
		cfg.Timing = timing
		cfg.Logger = slog.New(slog.DiscardHandler)
	})
	h.c.Settle()
	h.start = time.Now()
	h.nodes = make([]atomic.Pointer[flotilla.Node], nodes)
	for i, n := range h.c.Nodes {
		h.nodes[i].Store(n)
	}
	h.cut = make([]bool, nodes)
	return h
}

func (h *chaos) now() time.Duration { return time.Since(h.start) }

// touch says which nodes cannot reach all others from now on. If they leave no majority, nobody is
// untouched.
func (h *chaos) touch(nodes ...int) {
	for i := range h.cut {
		h.cut[i] = slices.Contains(nodes, i) || h.nodes[i].Load() == nil
	}
	well := 0
	for _, cut := range h.cut {
		if !cut {
			well++
		}
	}
	for i, cut := range h.cut {
		cut = cut || well <= len(h.cut)/2
		last := len(h.rec.cuts[i]) - 1
		open := last >= 0 && h.rec.cuts[i][last].to == noEnd
		if cut && !open {
			h.rec.cuts[i] = append(h.rec.cuts[i], window{from: h.now(), to: noEnd})
		} else if !cut && open {
			h.rec.cuts[i][last].to = h.now()
		}
	}
}

// leader is the node that leads now; some other if there is none.
func (h *chaos) leader() int {
	for _, i := range h.c.Live() {
		if s := h.c.Nodes[i].Status(); s.Leader == s.ID {
			return i
		}
	}
	return h.c.Live()[0]
}

// kill ends a process with kill -9. The node has been touched.
func (h *chaos) kill(i int) {
	h.gone(i)
	if h.died != nil {
		h.died(i)
	}
	h.c.Kill(i)
}

// gone notes that a process has ended.
func (h *chaos) gone(i int) {
	h.nodes[i].Store(nil)
	cuts := h.rec.cuts[i]
	cuts[len(cuts)-1].dead = true
}

func (h *chaos) restart() {
	for i := range h.nodes {
		if h.nodes[i].Load() == nil {
			h.c.Restart(i)
			h.nodes[i].Store(h.c.Nodes[i])
		}
	}
}

// run lets one fault after the other happen for a time, with calm between them, and mends
// everything.
func (h *chaos) run(d time.Duration) {
	n := len(h.nodes)
	for h.now() < d {
		i := h.random.IntN(n)
		if h.random.IntN(3) == 0 {
			i = h.leader()
		}
		other := (i + 1 + h.random.IntN(n-1)) % n
		var what string
		switch h.random.IntN(9) {
		case 0, 8:
			what = fmt.Sprintf("isolate n%d", i)
			h.touch(i)
			h.c.Isolate(i)
		case 1, 2:
			what = fmt.Sprintf("kill n%d", i)
			h.touch(i) // before it is dead, so that no client finds it half dead and untouched
			h.kill(i)
		case 3:
			what = fmt.Sprintf("block n%d to n%d", i, other)
			h.touch(i, other)
			h.c.Block(i, other)
		case 4:
			minority := h.random.Perm(n)[:1+h.random.IntN((n-1)/2)]
			var majority []int
			for i := range n {
				if !slices.Contains(minority, i) {
					majority = append(majority, i)
				}
			}
			what = fmt.Sprintf("partition %v from %v", minority, majority)
			h.touch(minority...)
			h.c.Partition(minority, majority)
		case 5:
			latency := time.Duration(1+h.random.IntN(int(h.rec.lease/8/time.Millisecond))) * time.Millisecond
			what = fmt.Sprintf("latency %v", latency)
			h.c.SetLatency(latency)
		case 6:
			what = fmt.Sprintf("isolate n%d, kill n%d", other, i)
			h.touch(i, other)
			h.c.Isolate(other)
			h.kill(i)
		case 7:
			what = fmt.Sprintf("stop n%d", i)
			h.touch(i)
			h.gone(i)
			h.c.Stop(i)
		}
		from := h.now()
		h.pause(50*time.Millisecond, 12*h.rec.lease)
		if h.random.IntN(2) == 0 { // else they come back into a network that is still cut
			h.c.Heal()
		}
		h.restart()
		h.pause(0, h.rec.lease)
		h.c.Heal()
		h.c.SetLatency(0)
		h.touch()
		h.t.Logf("%v to %v: %s", from, h.now(), what)
		h.pause(h.rec.lease/2, 8*h.rec.lease)
	}
}

func (h *chaos) pause(least, most time.Duration) {
	time.Sleep(least + time.Duration(h.random.Int64N(int64(most-least))))
}

// settle waits until the cluster is well after run.
func (h *chaos) settle() {
	h.t.Helper()
	h.calls.Wait()
	h.c.Settle()
	time.Sleep(abandonedSlack)
}

// call runs f as an operation. f fills in what came of it, and returns whether it is to be judged.
func (h *chaos) call(o operation, f func(o *operation) bool) operation {
	o.call, o.from = h.ticks.Add(1), h.now()
	judged := f(&o)
	o.ret, o.to = h.ticks.Add(1), h.now()
	if o.open {
		o.ret = math.MaxInt64
	}
	if judged {
		h.mu.Lock()
		h.rec.ops = append(h.rec.ops, o)
		h.mu.Unlock()
	}
	return o
}

// client works on some of the keys until ctx ends, always at the same node.
func (h *chaos) client(ctx context.Context, seed uint64, id, clients, keys int) {
	random := rand.New(rand.NewPCG(seed, uint64(id)))
	at := id % len(h.nodes)
	var mine []int
	for k := range keys {
		if (id-k%clients+clients)%clients < 5 {
			// no more than five share a key: a check takes exponential time
			mine = append(mine, k)
		}
	}
	for i := 0; ctx.Err() == nil; i++ {
		time.Sleep(time.Duration(random.IntN(150)) * time.Millisecond)
		n := h.nodes[at].Load()
		if n == nil {
			continue
		}
		key := strconv.Itoa(mine[random.IntN(len(mine))])
		limit := time.Duration(500+random.IntN(4000)) * time.Millisecond
		switch p := random.IntN(100); {
		case p < 40:
			h.write(n.Storage(), operation{kind: wrote, node: at, key: "key/" + key, value: fmt.Sprintf("%d.%d", id, i)}, limit)
		case p < 48:
			h.write(n.Storage(), operation{kind: wrote, node: at, key: "key/" + key}, limit)
		case p < 80:
			h.read(n, operation{kind: loaded, node: at, key: "key/" + key})
		default:
			o, held := h.acquire(n.Storage(), operation{node: at, key: "lock/" + key}, random.IntN(2) == 0, limit)
			if !held {
				continue
			}
			hold := time.Duration(random.IntN(400)) * time.Millisecond
			if random.IntN(10) == 0 {
				hold *= 20
			}
			time.Sleep(hold)
			h.release(n.Storage(), o, limit)
		}
	}
}

func (h *chaos) write(s *flotilla.Storage, o operation, limit time.Duration) {
	ctx, cancel := context.WithTimeout(h.t.Context(), limit)
	defer cancel()
	h.call(o, func(o *operation) bool {
		var err error
		if o.value == "" {
			err = s.Delete(ctx, o.key)
		} else {
			err = s.Store(ctx, o.key, []byte(o.value))
		}
		o.lost = errors.Is(err, flotilla.ErrLost)
		o.open = err != nil && !o.lost
		return true
	})
}

func (h *chaos) read(n *flotilla.Node, o operation) {
	h.call(o, func(o *operation) bool {
		o.unready = !n.Status().Ready
		value, err := n.Storage().Load(h.t.Context(), o.key)
		o.value = string(value)
		o.unready = o.unready || !n.Status().Ready
		return err == nil || errors.Is(err, fs.ErrNotExist)
	})
}

// acquire takes a lock by Lock or TryLock. One that was not granted in time may yet be, for a
// while.
func (h *chaos) acquire(s *flotilla.Storage, o operation, wait bool, limit time.Duration) (operation, bool) {
	ctx, cancel := context.WithTimeout(h.t.Context(), limit)
	defer cancel()
	o.kind = locked
	o = h.call(o, func(o *operation) bool {
		var err error
		ok := true
		if wait {
			err = s.Lock(ctx, o.key)
		} else {
			ok, err = s.TryLock(ctx, o.key)
		}
		if o.open = err != nil; !ok && err == nil {
			o.kind = busy
		}
		o.holding = o.call
		return true
	})
	return o, o.kind == locked && !o.open
}

func (h *chaos) release(s *flotilla.Storage, o operation, limit time.Duration) {
	ctx, cancel := context.WithTimeout(h.t.Context(), limit)
	defer cancel()
	o.kind = unlocked
	h.call(o, func(o *operation) bool {
		err := s.Unlock(ctx, o.key)
		o.lost = errors.Is(err, flotilla.ErrLost) || errors.Is(err, fs.ErrNotExist)
		o.open = err != nil && !o.lost
		return true
	})
}

// Whatever happens to nodes and network, writes and locks are linearizable, and a read is never
// older than the last write that was acknowledged before it began. LINEAR_SEED=n runs one seed
// alone.
func TestLinearizableUnderFaults(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, run := range chaosRuns(t) {
		t.Run(fmt.Sprintf("%d nodes, seed %d", run.nodes, run.seed), func(t *testing.T) {
			var rec *history
			synctest.Test(t, func(t *testing.T) {
				h := newChaos(t, run.seed, run.nodes)
				rec = h.rec
				ctx, stop := context.WithCancel(t.Context())
				const keys = 12
				for id := range 3 * run.nodes {
					h.calls.Go(func() { h.client(ctx, run.seed, id, 3*run.nodes, keys) })
				}
				length := time.Minute
				if flotilla.Long() {
					length = 100 * time.Second
				}
				h.run(length)
				stop()
				h.settle()
				h.readAll(keys)
			})
			count := make(map[kind]int)
			open := 0
			for _, o := range rec.ops {
				if count[o.kind]++; o.open {
					open++
				}
			}
			faults, judged := rec.judge() // not in the bubble: a search has a limit in real time
			for _, fault := range faults {
				t.Error(fault)
			}
			t.Logf("%d operations, %d of them open: %v; %d reads were judged", len(rec.ops), open, count, judged)
			if count[wrote] < 500 || judged < 100 || count[locked] < 200 || count[busy] < 10 {
				t.Errorf("too little happened: %v; %d reads were judged", count, judged)
			}
		})
	}
}

// chaosRun is a cluster's size and the seed of what happens to it.
type chaosRun struct {
	nodes int
	seed  uint64 // an odd one is for the timing Fast
}

// chaosRuns are the ones to be done.
func chaosRuns(t *testing.T) []chaosRun {
	t.Helper()
	if s := os.Getenv("LINEAR_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []chaosRun{{3, seed}, {5, seed}}
	}
	if flotilla.Long() {
		return []chaosRun{{3, 0}, {3, 1}, {3, rand.Uint64()}, {5, 0}, {5, rand.Uint64()}}
	}
	return []chaosRun{{3, rand.Uint64()}}
}

// readAll reads all keys on all nodes, when all is over.
func (h *chaos) readAll(keys int) {
	h.t.Helper()
	for k := range keys {
		values := make(map[string]bool)
		for i, n := range h.c.Nodes {
			o := h.call(operation{kind: loaded, final: true, node: i, key: "key/" + strconv.Itoa(k)}, func(o *operation) bool {
				value, err := n.Storage().Load(h.t.Context(), o.key)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					h.t.Errorf("n%d: %v", i, err)
				}
				o.value = string(value)
				return true
			})
			values[o.value] = true
		}
		if len(values) != 1 {
			h.t.Errorf("nodes do not agree on key %d: %v", k, values)
		}
	}
}
