package limits

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

const (
	pause  = 10 * time.Millisecond  // between requests, on average
	atOnce = 10                     // requests without a pause, after a rest
	sweeps = 900 * time.Millisecond // between two of them; Life.Second wakes about once a second
)

// errCount is the error of a reply that answers other debts than were asked about.
var errCount = errors.New("the reply has another number of answers")

// Config is what Limits needs of the node around it. All fields are required.
type Config struct {
	Timing timing.Timing   // bounds a request
	Life   *lifecycle.Life // wakes Run about once a second
	Node   string          // this node's ID

	// Servers returns how many servers the cluster has, 0 if this node does not know it yet.
	Servers func() int

	// Leader returns the ID of the leader, empty if none is known or the cluster has no limits yet.
	Leader func() string

	// Term returns the term in which this node leads and has a lease, 0 if it does not.
	Term func() uint64

	// Call sends a request to the leader.
	Call func(ctx context.Context, leader string, ask Request) (Reply, error)
}

// Limits are the limiters of a node, and the buckets of all nodes while this node leads. Its
// methods are safe for concurrent use.
type Limits struct {
	cfg    Config
	began  time.Time // all times are counted from here
	debts  *debts
	ledger ledger
	wake   chan struct{} // holds an element when there is something new for Run

	mu       sync.Mutex
	limiters map[[2]string]*Limiter // by bucket and name
}

// New returns Limits. It starts nothing.
func New(cfg Config) *Limits {
	return &Limits{
		cfg: cfg, began: time.Now(), debts: newDebts(), wake: make(chan struct{}, 1), limiters: make(map[[2]string]*Limiter),
	}
}

// Limiter is one limiter of a node. Its methods are safe for concurrent use.
type Limiter struct {
	all          *Limits
	bucket, name string
	number       int // tells the limiters of this node apart
	limit        atomic.Pointer[Limit]
}

// Limiter returns the limiter of a bucket with that name. From now on it has this limit, which the
// caller has checked.
func (x *Limits) Limiter(bucket, name string, limit Limit) *Limiter {
	x.mu.Lock()
	defer x.mu.Unlock()
	l := x.limiters[[2]string{bucket, name}]
	if l == nil {
		l = &Limiter{all: x, bucket: bucket, name: name, number: len(x.limiters)}
		x.limiters[[2]string{bucket, name}] = l
	}
	l.limit.Store(&limit)
	return l
}

// Allow reports whether n more are within the limit of a key, and counts them if they are.
func (l *Limiter) Allow(key string, n int) bool {
	limit := l.limit.Load()
	if n <= 0 || n > limit.Burst {
		return n <= 0
	}
	ok, report := l.all.debts.take(place{l, shorten(key)}, float64(n), *limit, l.all.servers(), l.all.now)
	if report {
		l.all.poke()
	}
	return ok
}

// now returns the time since the beginning.
func (x *Limits) now() time.Duration { return time.Since(x.began) }

// servers returns how many nodes share the limits.
func (x *Limits) servers() int { return max(1, x.cfg.Servers()) }

// poke has Run look. It does not block.
func (x *Limits) poke() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Run settles what this node owes until ctx ends. From then on the node has no leader.
func (x *Limits) Run(ctx context.Context) {
	defer func() { x.debts.setAlone(true, x.now()) }()
	swept, next := time.Duration(0), -time.Duration(atOnce*pause)
	for ctx.Err() == nil {
		second, now := x.cfg.Life.Second.Wait(), x.now()
		if now-swept >= sweeps {
			swept = now
			x.debts.sweep(x.servers(), now)
			x.ledger.sweep(x.cfg.Term() > 0 || x.cfg.Leader() == x.cfg.Node, now)
		}
		if all := x.debts.collect(); len(all) > 0 {
			wait := x.cfg.Timing.Retry()
			if x.report(ctx, all) == nil {
				now := x.now()
				next = max(next, now-atOnce*pause) + pause
				wait = next - now
			}
			if wait > 0 {
				select {
				case <-time.After(wait):
				case <-ctx.Done():
				}
			}
			continue
		}
		if x.debts.size.Load() == 0 && x.ledger.isEmpty() {
			second = nil
		}
		select {
		case <-x.wake:
		case <-second:
		case <-ctx.Done():
		}
	}
}

// report tells the leader what this node owes. Without an answer the node has no leader.
func (x *Limits) report(ctx context.Context, all []owing) error {
	reply, err := x.ask(ctx, requestOf(all))
	if err == nil && len(reply.Answers) != len(all) {
		err = errCount
	}
	x.debts.setAlone(err != nil, x.now())
	if err == nil {
		x.debts.settle(all, reply.Answers, x.now())
	}
	return err
}

// ask asks the leader, which may be this node.
func (x *Limits) ask(ctx context.Context, ask Request) (Reply, error) {
	leader := x.cfg.Leader()
	switch leader {
	case "":
		return Reply{}, errs.ErrNoLeader
	case x.cfg.Node:
		return x.Serve(ctx, leader, ask)
	}
	ctx, cancel := context.WithTimeout(ctx, x.cfg.Timing.Lease)
	defer cancel()
	return x.cfg.Call(ctx, leader, ask)
}

// requestOf returns the request for debts, of which those of a limiter stand together.
func requestOf(all []owing) (ask Request) {
	var last *Limiter
	for _, o := range all {
		if o.limiter != last {
			last = o.limiter
			ask.Limiters = append(ask.Limiters, Owing{Bucket: last.bucket, Name: last.name, Limit: *last.limit.Load()})
		}
		of := &ask.Limiters[len(ask.Limiters)-1]
		// The burst may have become less than what is owed.
		of.Debts = append(of.Debts, Debt{o.key, min(o.owed, uint64(of.Limit.Burst))})
	}
	return ask
}

// Serve answers rpc.Limit. It looks at the lease again at the end: the process may have stood
// still.
func (x *Limits) Serve(_ context.Context, node string, ask Request) (Reply, error) {
	term := x.cfg.Term()
	if term == 0 {
		return Reply{}, rpc.ErrNotLeader
	}
	reply, fresh := x.ledger.answer(term, node, ask, x.now())
	if x.cfg.Term() != term {
		return Reply{}, rpc.ErrNotLeader
	}
	if fresh {
		x.poke()
	}
	return reply, nil
}
