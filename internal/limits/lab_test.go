package limits

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// lab is a cluster of nodes with one limiter, in a bubble.
type lab struct {
	t        *testing.T
	nodes    []*Limits
	limiters []*Limiter
	limit    Limit
	random   *rand.Rand // only the test's own goroutine uses it
	end      func()

	mu     sync.Mutex
	leader int // -1: there is none
	term   uint64
	cut    []bool        // nodes that reach no other
	lossy  bool          // half of the answers are lost
	trip   time.Duration // of a message, one way
	calls  int           // requests between nodes
	fate   *rand.Rand    // decides which answers are lost
}

const lease = 600 * time.Millisecond

func newLab(t *testing.T, nodes int, limit Limit, seed uint64) *lab {
	l := &lab{
		t: t, limit: limit, cut: make([]bool, nodes), term: 1, trip: 200 * time.Microsecond,
		random: rand.New(rand.NewPCG(seed, 1)), fate: rand.New(rand.NewPCG(seed, 2)),
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for i := range nodes {
		life := lifecycle.New()
		x := New(Config{
			Timing: timing.Of(lease), Life: life, Node: fmt.Sprint("n", i),
			Servers: func() int { return nodes },
			Leader: func() string {
				if leader, _ := l.leading(); leader >= 0 {
					return fmt.Sprint("n", leader)
				}
				return ""
			},
			Term: func() uint64 {
				leader, term := l.leading()
				if leader != i {
					return 0
				}
				return term
			},
			Call: func(ctx context.Context, _ string, ask Request) (Reply, error) { return l.call(ctx, i, ask) },
		})
		l.nodes = append(l.nodes, x)
		l.limiters = append(l.limiters, x.Limiter("b", "l", limit))
		running.Go(func() { x.Run(ctx) })
		running.Go(func() {
			for ctx.Err() == nil {
				select {
				case <-time.After(time.Second):
					life.Second.Notify()
				case <-ctx.Done():
				}
			}
		})
	}
	l.end = func() {
		cancel()
		running.Wait()
	}
	return l
}

func (l *lab) leading() (int, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leader, l.term
}

// elect makes a node the leader, or none.
func (l *lab) elect(i int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leader = i
	l.term++
}

func (l *lab) setCut(i int, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut[i] = cut
}

// requests returns how many requests there were between nodes.
func (l *lab) requests() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

// call carries a request from a node to the leader and the answer back.
func (l *lab) call(ctx context.Context, from int, ask Request) (Reply, error) {
	l.mu.Lock()
	l.calls++
	to, trip := l.leader, l.trip
	lost := l.cut[from] || to < 0 || l.cut[to]
	answerLost := l.lossy && l.fate.IntN(2) == 0
	l.mu.Unlock()
	if lost {
		<-ctx.Done()
		return Reply{}, context.Cause(ctx)
	}
	ask, err := DecodeRequest(ask.Encode())
	if err != nil {
		return Reply{}, err
	}
	time.Sleep(trip)
	reply, err := l.nodes[to].Serve(ctx, fmt.Sprint("n", from), ask)
	if err == nil {
		reply, err = DecodeReply(reply.Encode())
	}
	if answerLost {
		<-ctx.Done()
		return Reply{}, context.Cause(ctx)
	}
	time.Sleep(trip)
	return reply, err
}

// load is random use of one key, and what comes of it.
type load struct {
	*lab
	rates   []float64 // of each node, in a second
	begun   time.Time
	allowed []int // of each node
	refused int

	// An event is something that was allowed. extra is what faults may have added until then.
	events []event
	extra  float64
}

type event struct{ at, extra float64 }

func (l *lab) load(rates ...float64) *load {
	return &load{lab: l, rates: rates, begun: time.Now(), allowed: make([]int, len(l.nodes))}
}

// run uses the key for a time, in steps of a millisecond.
func (u *load) run(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		alone := u.alone()
		time.Sleep(time.Millisecond)
		leader, _ := u.leading()
		if leader >= 0 {
			u.extra += u.limit.Rate / float64(len(u.nodes)) * float64(max(alone, u.alone())) / 1000
		}
		for i, rate := range u.rates {
			for range poisson(u.random, rate/1000) {
				if !u.limiters[i].Allow("k", 1) {
					u.refused++
					continue
				}
				u.allowed[i]++
				u.events = append(u.events, event{time.Since(u.begun).Seconds(), u.extra})
			}
		}
	}
}

// alone counts the nodes that have no leader.
func (l *lab) alone() (n int) {
	for _, x := range l.nodes {
		if x.debts.alone.Load() != 0 {
			n++
		}
	}
	return n
}

// total returns how much was allowed.
func (u *load) total() float64 { return float64(len(u.events)) }

// check checks the bound in every stretch of time from one event to another.
func (u *load) check() {
	u.t.Helper()
	bound := float64(u.limit.Burst) + float64(len(u.nodes))*u.limit.slice(len(u.nodes))
	least, most := math.Inf(1), 0.0
	for i, e := range u.events {
		base := u.limit.Rate*e.at + e.extra
		least = min(least, float64(i)-base)
		most = max(most, float64(i+1)-base-least)
	}
	if most > bound+1e-3 {
		u.t.Errorf("beyond what the rate allows there were %.2f, the bound is %v", most, bound)
	}
	u.t.Logf("%v allowed, %d refused, %.1f of %.0f beyond the rate, %.0f by faults", u.allowed, u.refused, most, bound, u.extra)
}

// poisson returns a number of events with a mean, by Knuth's method.
func poisson(r *rand.Rand, mean float64) (n int) {
	for p := r.Float64(); p > math.Exp(-mean); p *= r.Float64() {
		n++
	}
	return n
}

var errTest = errors.New("a fault")
