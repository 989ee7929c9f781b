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

const (
	conflictPause = 10 * time.Second // after a foreign owner was found, and
	conflictMax   = time.Minute      // when it is there again
	letGo         = 10 * time.Millisecond
	keepFor       = 3 * time.Second // what Keep asks of the kernel at a time
	keepEvery     = time.Second
	keepLook      = 10 * time.Millisecond // for a Place that shares a lease with others, which may end
	lookEvery     = 2 * time.Millisecond  // who has what is kept here
)

var errUnfit = errors.New("the node cannot serve the address")

// Run competes for the addresses of cfg on this node, and has them in place while the cluster grants them to it, until ctx ends: then it hands
// them over, as planned, and returns nil. It returns an error if cfg is wrong, if this machine cannot do what is asked, which the error explains, or when the
// node was closed. All that may pass is waited for and tried again.
//
// On one machine only one living program at a time may run it for an address: what keeps a machine silent that has not the role also silences another program there.
//
// A program should end the context of Run before that of its server or at the same time, and let both return before it exits.
// A server that is ended by flotilla.Serve waits until Run has handed over.
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
	r := &runner{h: h, cfg: cfg, place: place}
	err = r.run(ctx)
	r.endKeeping()
	if closed := place.Close(); closed != nil {
		err = errors.Join(err, fmt.Errorf("vip: %s: %w", cfg.Name, closed))
	}
	return err
}

// runner is one Run.
type runner struct {
	h     Holder
	cfg   Config
	place Place

	// The fields below are of the goroutine of run, and of Hold's function, which it waits for.
	fitness   fitness
	conflicts int       // in a row
	began     time.Time // when the addresses came here
	said      string    // why the addresses could not be put in place, as last told
	keeping   *keeping  // the lease is over, and the addresses stay; nil: that is not so

	mu sync.Mutex // held for Config.Notify, one at a time
}

func (r *runner) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if why := r.unfit(); why != nil {
			r.tell(Event{Kind: Unusable, Err: why})
			r.remark(fmt.Sprintf("not competed for here: %v", why))
			if !r.watch(ctx, true) {
				return nil
			}
			r.remark("")
			r.fitness.fit()
			r.tell(Event{Kind: Competing})
		}
		if known, why := check(ctx, r.place); known && why != nil && ctx.Err() == nil {
			r.rest(ctx, r.unable(why))
			continue
		}
		var pause time.Duration
		err := r.compete(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("vip: %s: %w", r.cfg.Name, err)
		case errors.Is(err, errUnfit), errors.Is(err, hold.ErrYielded), errors.Is(err, errLapsed):
		case errors.Is(err, errConflict):
			pause = conflictPause
			if r.conflicts++; r.conflicts > 1 {
				pause = conflictMax
			}
			r.tell(Event{Kind: Conflict, Err: err})
		default:
			if errors.Is(err, errUnable) {
				r.fitness.explain(check(ctx, r.place))
			}
			r.said = "" // each attempt is worth a word
			pause = r.unable(err)
		}
		r.rest(ctx, pause)
	}
	return nil
}

// unable notes and tells why the addresses cannot be put in place, and returns for how long the node leaves them to others.
func (r *runner) unable(why error) time.Duration {
	pause := r.fitness.failed()
	if why.Error() != r.said {
		r.tell(Event{Kind: Failed, Err: why})
	}
	r.said = why.Error()
	r.remark(fmt.Sprintf("cannot be put in place here: %v", why))
	return pause
}

// rest waits: for the time given, or, after a failure, until something has changed that may have been the cause.
func (r *runner) rest(ctx context.Context, pause time.Duration) {
	var changed <-chan struct{}
	if r.fitness.failures > 0 {
		changed = r.place.Changed()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return
		case <-changed:
			if changed = r.place.Changed(); r.unfit() != nil {
				return
			}
			if known, why := check(ctx, r.place); known && why == nil && !r.fitness.humble {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// remark has the cluster's status say something of the addresses on this node; empty: nothing any more.
func (r *runner) remark(text string) {
	if h, ok := r.h.(interface{ Remark(role, text string) }); ok {
		h.Remark(r.cfg.Name, text)
	}
}

// compete holds the role once, if the cluster grants it, for as long as this node is fit.
func (r *runner) compete(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil)
	watching.Go(func() {
		if r.watch(ctx, false) {
			cancel(fmt.Errorf("%w: %w", errUnfit, r.unfit()))
		}
	})
	guarded, ok := r.place.(Guarded)
	role := hold.Role{
		Name: r.cfg.Name, Group: r.cfg.Group, PreemptDelay: r.cfg.PreemptDelay,
		Public: true, Linger: r.place.Linger(), Keep: r.cfg.Quorum == Keep, Bequeathed: ok && guarded.Guarded(),
	}
	role.Priority, role.NoPreempt = r.fitness.rank(&r.cfg)
	return r.h.Hold(ctx, role, func(held context.Context, t hold.Tenure) error { return r.tenure(ctx, held, t) })
}

// unfit returns why this node should not have the addresses now, nil if it may.
func (r *runner) unfit() error {
	if err := r.place.Usable(); err != nil {
		return err
	}
	return r.unready()
}

// unready returns an error unless the program is ready.
func (r *runner) unready() error {
	if r.cfg.Ready != nil && !r.cfg.Ready() {
		return errors.New("the program is not ready")
	}
	return nil
}

// watch waits until the node is fit or is not. It reports false if ctx ends first.
func (r *runner) watch(ctx context.Context, fit bool) bool {
	var tick <-chan time.Time
	if r.cfg.Ready != nil {
		ticker := time.NewTicker(readyEvery)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		changed := r.place.Changed()
		usable := r.place.Usable() == nil
		for looked := false; !looked; {
			if (usable && r.unready() == nil) == fit {
				return true
			}
			select {
			case <-changed:
				looked = true
			case <-tick:
			case <-ctx.Done():
				return false
			}
		}
	}
}

// errLapsed is the outcome of a tenure that was lost.
var errLapsed = errors.New("the lease is over")

// tenure has the addresses in place while the role is held. ctx is the caller's, held that of the tenure.
func (r *runner) tenure(ctx, held context.Context, t hold.Tenure) error {
	start := time.Now()
	kept := r.endKeeping()
	if err := r.probe(held, kept); err != nil {
		return err
	}
	changed := r.place.Changed()
	if err := r.place.Bind(held, Grant{Fence: t.Fence(), Until: t.Deadline(), Will: t.Will}); err != nil {
		if held.Err() == nil && !errors.Is(err, errLapsed) {
			err = fmt.Errorf("%w: %w", errUnable, err)
			select {
			case <-changed: // the interface went down in between, or the like
			default:
				r.fitness.unexplained++
			}
		}
		return errors.Join(err, r.place.Unbind())
	}
	r.fitness.fit()
	r.said = ""
	r.remark("")
	if !kept {
		r.began = time.Now()
	}
	r.tell(Event{Kind: Bound, Fence: t.Fence(), Took: time.Since(start)})
	if err := r.stay(held, t); err != nil {
		err = errors.Join(err, r.place.Unbind())
		if !errors.Is(err, errLapsed) && !errors.Is(err, errConflict) {
			err = fmt.Errorf("%w: %w", errUnable, err)
		}
		r.drain(context.WithoutCancel(held), 0)
		return err
	}
	if time.Since(r.began) >= conflictMax {
		r.conflicts = 0
	}
	asked, cause := time.Now(), context.Cause(held)
	planned := ctx.Err() != nil || errors.Is(cause, hold.ErrYielded)
	if planned {
		if err := r.handOver(held, t); err == nil {
			r.tell(Event{Kind: Moved, Fence: t.Fence(), Held: time.Since(r.began), Took: time.Since(asked), Err: cause})
			return cause
		} else if !errors.Is(err, errLapsed) {
			return errors.Join(err, r.place.Unbind())
		}
	}
	// One that stood still, and finds out when others may have the address already, keeps nothing.
	if r.cfg.Quorum == Keep && !planned && time.Now().Before(t.Deadline()) {
		r.keep(t.Fence())
		r.tell(Event{Kind: Kept, Fence: t.Fence(), Err: cause})
		return errLapsed
	}
	err := r.place.Unbind()
	r.tell(Event{Kind: Lost, Fence: t.Fence(), Held: time.Since(r.began), Err: cause})
	r.drain(context.WithoutCancel(held), 0) // connections to the address would stay established for ever
	return errors.Join(errLapsed, err)
}

// probe looks for a foreign owner. A kept address is this node's own.
func (r *runner) probe(ctx context.Context, kept bool) error {
	p, ok := r.place.(Prober)
	if !ok || !r.cfg.Probe || kept {
		return nil
	}
	owner, err := p.Probe(ctx)
	if err == nil && owner != "" {
		err = fmt.Errorf("%w: %s", errConflict, owner)
	}
	return err
}

// stay keeps the addresses in place until held ends. An error says that they cannot be.
func (r *runner) stay(held context.Context, t hold.Tenure) error {
	d := defence{policy: r.cfg.Conflict}
	defer r.remark("")
	var claims <-chan *ConflictError
	if c, ok := r.place.(Contested); ok {
		claims = c.Claims()
		for len(claims) > 0 {
			<-claims // of an earlier tenure
		}
	}
	stale, _ := r.place.(interface{ stale() bool })
	returns, _ := t.(interface{ Returned() <-chan struct{} })
	over := time.NewTimer(conflictOver)
	over.Stop()
	announcements := begun(time.Now())
	again := time.NewTimer(time.Until(announcements.next()))
	defer again.Stop()
	for {
		renewed := t.Renewed()
		if held.Err() != nil {
			return nil
		}
		changed := r.place.Changed()
		var returned <-chan struct{}
		if returns != nil {
			returned = returns.Returned()
		}
		var later <-chan time.Time
		if until := t.Deadline(); time.Until(until) > 0 {
			wait, err := r.place.Extend(until)
			if err != nil {
				return err
			}
			if wait > 0 {
				renewed, later = nil, time.After(wait)
			}
		}
		// At each turn: what went missing before changed was there to be closed counts too.
		mended, err := r.place.Mend(held)
		if err != nil {
			return err
		}
		if mended {
			r.tell(Event{Kind: Mended, Fence: t.Fence()})
		}
		if stale != nil && stale.stale() {
			announcements.again(time.Now())
			again.Reset(time.Until(announcements.next()))
		}
		select {
		case <-held.Done():
			return nil
		case <-renewed:
		case <-later:
		case <-changed:
		case <-returned: // it, and those who are on its side of what was a partition, may think that it has the addresses
			announcements.again(time.Now())
			again.Reset(time.Until(announcements.next()))
		case c := <-claims:
			if !time.Now().Before(t.Deadline()) {
				continue // it may be the next owner's
			}
			announce, report, yield := d.heard(c, time.Now())
			over.Reset(conflictOver)
			if announce {
				r.announce(t)
			}
			if report {
				r.tell(Event{Kind: Conflict, Fence: t.Fence(), Err: c})
				r.remark(c.Error())
			}
			if yield {
				return fmt.Errorf("%w: %w", errConflict, c)
			}
		case <-over.C:
			if d.over(time.Now()) {
				r.cfg.Logger.Info("floating address: nobody else claims it any more", "addrs", r.cfg.unit().Addrs)
				r.remark("")
			}
		case <-again.C:
			r.announce(t)
			announcements.announced(time.Now())
			again.Reset(time.Until(announcements.next()))
		}
	}
}

// announce tells the neighbours again where the addresses are.
func (r *runner) announce(t hold.Tenure) {
	if err := r.place.Announce(); err != nil {
		r.tell(Event{Kind: Failed, Fence: t.Fence(), Err: err})
	}
}

// handOver has the clients go and gives the addresses up. It returns errLapsed when the lease ends before that.
func (r *runner) handOver(held context.Context, t hold.Tenure) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(held))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.leave(ctx) }()
	for {
		renewed, until := t.Renewed(), t.Deadline()
		if time.Until(until) > 0 {
			r.place.Extend(until) // if it fails the kernel ends it
		}
		end := time.NewTimer(time.Until(until.Add(-letGo)))
		select {
		case err := <-done:
			end.Stop()
			return err
		case <-renewed:
			end.Stop()
		case <-end.C:
			if time.Until(t.Deadline()) > letGo {
				continue
			}
			cancel()
			r.place.Unbind() // now; the drain may not heed its context
			<-done
			return errLapsed
		}
	}
}

// leave is handOver for as long as the lease lasts.
func (r *runner) leave(ctx context.Context) error {
	// Where the interface has failed no client can be told anything, and each moment is an outage.
	if r.place.Usable() == nil {
		r.drain(ctx, r.cfg.DrainTime)
	}
	if err := r.place.Quiesce(ctx); err != nil {
		return err
	}
	r.drain(ctx, finishTime)
	return r.place.Release(ctx)
}

// drain has the clients of all addresses go; with no patience it closes their connections.
func (r *runner) drain(ctx context.Context, patience time.Duration) {
	if r.cfg.Drain == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var all sync.WaitGroup
	for _, a := range r.cfg.unit().Addrs {
		all.Go(func() {
			if err := r.cfg.Drain(ctx, a.Addr()); err != nil && ctx.Err() == nil {
				r.cfg.Logger.Warn("clients of a floating address were not drained", "addr", a.Addr(), "err", err)
			}
		})
	}
	all.Wait()
}

// keeping has the addresses stay without a lease.
type keeping struct {
	stop context.CancelFunc
	done chan struct{}
	over bool // the addresses are gone; to be read when done is closed
}

// keep begins that, after a tenure of that fence. It ends with a new grant, or when another node is known to have one.
func (r *runner) keep(fence uint64) {
	ctx, stop := context.WithCancel(context.Background())
	k := &keeping{stop: stop, done: make(chan struct{})}
	r.keeping = k
	go func() {
		defer close(k.done)
		why := r.stayWithout(ctx, fence)
		if ctx.Err() == nil {
			k.over = true
			err := r.place.Unbind()
			r.tell(Event{Kind: Lost, Held: time.Since(r.began), Err: errors.Join(why, err)})
			r.drain(context.WithoutCancel(ctx), 0)
		}
	}()
}

// stayWithout returns why the addresses must go; nil if ctx ends.
func (r *runner) stayWithout(ctx context.Context, fence uint64) error {
	h, ok := r.h.(interface {
		Holder(role string) (fence uint64, own bool)
	})
	every, extend := keepEvery, func(until time.Time) error {
		_, err := r.place.Extend(until)
		return err
	}
	if k, ok := r.place.(interface{ keep(until time.Time) error }); ok {
		every, extend = keepLook, k.keep
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	stale, _ := r.place.(interface{ stale() bool })
	announcements := begun(time.Now())
	for extended := (time.Time{}); ; {
		if ok {
			if now, own := h.Holder(r.cfg.Name); now > fence && !own {
				return errors.New("the cluster is back, and another node has the address")
			}
		}
		if time.Since(extended) >= every {
			extended = time.Now()
			if err := extend(extended.Add(keepFor)); err != nil {
				return err
			}
		}
		mended, err := r.place.Mend(ctx)
		if err != nil {
			return err
		}
		if mended {
			r.tell(Event{Kind: Mended, Fence: fence})
		}
		now := time.Now()
		if stale != nil && stale.stale() {
			announcements.again(now)
		}
		if !now.Before(announcements.next()) {
			announcements.announced(now)
			if err := r.place.Announce(); err != nil {
				r.tell(Event{Kind: Failed, Fence: fence, Err: err})
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// endKeeping ends it, and leaves the addresses where they are. It reports whether they are here.
func (r *runner) endKeeping() (here bool) {
	k := r.keeping
	if k == nil {
		return false
	}
	k.stop()
	<-k.done
	r.keeping = nil
	return !k.over
}

// tell logs an event, and passes it on.
func (r *runner) tell(e Event) {
	e.Time, e.Name, e.Addrs = time.Now(), r.cfg.Name, r.cfg.unit().Addrs
	log := r.cfg.Logger.Info
	if e.Kind == Conflict || e.Kind == Failed || e.Kind == Lost || e.Kind == Kept {
		log = r.cfg.Logger.Warn
	}
	log("floating address: "+string(e.Kind), "addrs", e.Addrs, "fence", e.Fence, "took", e.Took, "why", e.Err)
	if r.cfg.Notify != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cfg.Notify(e)
	}
}
