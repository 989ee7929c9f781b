package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/hold"
)

// errUnfit is the reason for giving up a role that this node cannot serve now.
var errUnfit = errors.New("the node cannot serve the address")

// Run competes for the addresses of cfg on this node, and has them in place while the cluster
// grants them to it. When ctx ends it hands them over by a planned move and returns nil. It returns
// an error if cfg is wrong, if this machine cannot do what is needed (the error explains it), or if
// the node was closed. After any other failure it waits and tries again.
//
// Only one living program on a machine may call Run for an address at a time. The fence that keeps
// a node without the role silent would silence the other program too.
//
// A program should end the context of Run before that of its server, or at the same time, and exit
// only when both have returned. A server that flotilla.Serve ends waits until Run has handed over.
func Run(ctx context.Context, h Holder, cfg Config) error {
	if err := cfg.complete(h); err != nil {
		return err
	}
	place, err := cfg.Binder.Attach(ctx, cfg.unit())
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("vip: %s: %w", cfg.Name, err)
	}
	if _, ok := h.(PublicHolder); !ok {
		cfg.Logger.Warn("floating address: the holder does not wait for what a dead process leaves in the kernel; " +
			"use one that is a vip.PublicHolder")
	}
	r := newRunner(h, &cfg, place)
	r.report.begin()
	defer r.report.end()
	err = r.run(ctx)
	r.owner.endKeeping()
	if closed := place.Close(); closed != nil {
		err = errors.Join(err, fmt.Errorf("vip: %s: %w", cfg.Name, closed))
	}
	return err
}

// Check returns why this machine could not have the addresses now: what is wrong with cfg, an
// interface that is missing or down, or rights that this process lacks. Nil means that Run could
// put them in place, as far as that can be told without doing it. Check changes nothing, and asks
// no cluster. With a Config.Binder it looks at cfg alone.
func Check(cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	k, ok := cfg.Binder.(kernel)
	if !ok {
		return nil
	}
	if err := k.check(cfg.unit()); err != nil {
		return fmt.Errorf("vip: %s: %w", cfg.Name, err)
	}
	return nil
}

// runner competes for the role. Its methods are called by the goroutine of Run.
type runner struct {
	h         Holder
	cfg       *Config
	place     Place
	readiness readiness
	report    *reporter
	owner     *owner
}

func newRunner(h Holder, cfg *Config, place Place) *runner {
	report := newReporter(h, cfg)
	return &runner{
		h: h, cfg: cfg, place: place, report: report,
		readiness: readiness{place: place, ready: cfg.Ready},
		owner: &owner{
			h: h, cfg: cfg, place: place, report: report,
			clients: &drainer{addrs: cfg.addrs(), do: cfg.Drain, log: cfg.Logger},
		},
	}
}

func (r *runner) run(ctx context.Context) error {
	fitness := &r.owner.fitness
	for ctx.Err() == nil {
		if why := r.readiness.unfit(); why != nil {
			r.report.event(Event{Kind: Unusable, Err: why})
			r.report.remark(fmt.Sprintf("not competed for here: %v", why))
			if !r.readiness.await(ctx, true) {
				return nil
			}
			r.report.remark("")
			fitness.fit()
			r.report.event(Event{Kind: Competing})
		}
		if known, why := check(ctx, r.place); known && why != nil && ctx.Err() == nil {
			pause := fitness.failed()
			r.report.unable(why)
			r.rest(ctx, pause)
			continue
		}
		var pause time.Duration
		r.report.competes()
		err := r.compete(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("vip: %s: %w", r.cfg.Name, err)
		case errors.Is(err, errUnfit), errors.Is(err, hold.ErrYielded), errors.Is(err, errExpired):
		case errors.Is(err, errConflict):
			pause = conflictPause
			if r.owner.conflicts++; r.owner.conflicts > 1 {
				pause = conflictMax
			}
			r.report.eventWith(Event{Kind: Conflict, Err: err}, func(a *hold.Addresses) { a.Usable = false })
		default:
			if errors.Is(err, errUnable) {
				fitness.explain(check(ctx, r.place))
			}
			pause = fitness.failed()
			r.report.again() // each attempt is reported
			r.report.unable(err)
		}
		r.rest(ctx, pause)
	}
	return nil
}

// rest waits for a pause. After a failure it returns earlier if a possible cause has changed.
func (r *runner) rest(ctx context.Context, pause time.Duration) {
	var changed <-chan struct{}
	if r.owner.fitness.failures > 0 {
		changed = r.place.Changed()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return
		case <-changed:
			if changed = r.place.Changed(); r.readiness.unfit() != nil {
				return
			}
			if known, why := check(ctx, r.place); known && why == nil && !r.owner.fitness.humble {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// compete holds the role once, if the cluster grants it, for as long as this node is fit.
func (r *runner) compete(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil)
	watching.Go(func() {
		if r.readiness.await(ctx, false) {
			cancel(fmt.Errorf("%w: %w", errUnfit, r.readiness.unfit()))
		}
	})
	role := hold.Role{Name: r.cfg.Name, Group: r.cfg.Group, PreemptDelay: r.cfg.PreemptDelay}
	role.Priority, role.NoPreempt = r.owner.fitness.rank(r.cfg.Priority, r.cfg.NoPreempt)
	own := func(held context.Context, t hold.Tenure) error { return r.owner.hold(ctx, held, t) }
	if h, ok := r.h.(PublicHolder); ok {
		return h.HoldPublic(ctx, role, r.public(), own)
	}
	return r.h.Hold(ctx, role, own)
}

// public returns what the cluster must know about the effect of the role outside the process.
func (r *runner) public() hold.Public {
	guarded, ok := r.place.(Guarded)
	return hold.Public{
		HoldDown: r.place.HoldDown(), ReleasedOnDeath: ok && guarded.Guarded(), Keep: r.cfg.Quorum == Keep,
	}
}
