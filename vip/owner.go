package vip

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-ha/flotilla/hold"
)

const (
	letGo      = 10 * time.Millisecond // before the end of the lease the addresses are removed
	finishTime = 50 * time.Millisecond // for requests under way when new connections are held back
)

// owner has the addresses in place while this node holds the role. Its methods are called by the
// goroutine of Run, and by the function that Run passes to Hold and waits for.
type owner struct {
	h       Holder
	cfg     *Config
	place   Place
	report  *reporter
	clients *drainer

	fitness   fitness
	conflicts int       // tenures in a row that ended by a conflict
	began     time.Time // when the addresses came here
	keeping   *keeping  // the lease is over and the addresses stay; nil: they do not
}

// hold has the addresses in place while the role is held. ctx is that of Run, held that of the
// tenure.
func (o *owner) hold(ctx, held context.Context, t hold.Tenure) error {
	start := time.Now()
	kept := o.endKeeping()
	if err := o.probe(held, kept); err != nil {
		return err
	}
	if err := o.bind(held, t); err != nil {
		return err
	}
	if !kept {
		o.began = time.Now()
	}
	o.report.event(Event{Kind: Bound, Fence: t.Fence(), Took: time.Since(start)})
	if err := o.stay(held, t); err != nil {
		err = errors.Join(err, o.place.Unbind())
		o.report.unbound()
		if !errors.Is(err, errExpired) && !errors.Is(err, errConflict) {
			err = fmt.Errorf("%w: %w", errUnable, err)
		}
		o.clients.drain(context.WithoutCancel(held), 0)
		return err
	}
	if time.Since(o.began) >= conflictMax {
		o.conflicts = 0
	}
	asked, cause := time.Now(), context.Cause(held)
	planned := ctx.Err() != nil || errors.Is(cause, hold.ErrYielded)
	if planned {
		if err := o.handOver(held, t); err == nil {
			o.report.event(Event{
				Kind: Moved, Fence: t.Fence(), Held: time.Since(o.began), Took: time.Since(asked), Err: cause,
			})
			return cause
		} else if !errors.Is(err, errExpired) {
			err = errors.Join(err, o.place.Unbind())
			o.report.unbound()
			return err
		}
	}
	// A node that stood still past the deadline keeps nothing: others may have the address already.
	if o.cfg.Quorum == Keep && !planned && time.Now().Before(t.Deadline()) {
		o.keeping = keeping{
			h: o.h, name: o.cfg.Name, place: o.place, report: o.report, clients: o.clients,
			fence: t.Fence(), began: o.began,
		}.start()
		o.report.event(Event{Kind: Kept, Fence: t.Fence(), Err: cause})
		return errExpired
	}
	err := o.place.Unbind()
	o.report.event(Event{Kind: Lost, Fence: t.Fence(), Held: time.Since(o.began), Err: cause})
	// Otherwise connections to the addresses would stay established for ever.
	o.clients.drain(context.WithoutCancel(held), 0)
	return errors.Join(errExpired, err)
}

// endKeeping ends the time without a lease, if there is one. It leaves the addresses where they
// are, and reports whether they are here.
func (o *owner) endKeeping() (here bool) {
	here = o.keeping.end()
	o.keeping = nil
	return here
}

// probe looks for another machine that has the address. A kept address is this node's own.
func (o *owner) probe(ctx context.Context, kept bool) error {
	p, ok := o.place.(Prober)
	if !ok || !o.cfg.Probe || kept {
		return nil
	}
	other, err := p.Probe(ctx)
	if err == nil && other != "" {
		o.report.claimed(other)
		err = fmt.Errorf("%w: %s", errConflict, other)
	}
	return err
}

// bind puts the addresses in place.
func (o *owner) bind(held context.Context, t hold.Tenure) error {
	changed := o.place.Changed()
	if err := o.place.Bind(held, Grant{Fence: t.Fence(), Until: t.Deadline(), DeathNotice: t.DeathNotice}); err != nil {
		if held.Err() == nil && !errors.Is(err, errExpired) {
			err = fmt.Errorf("%w: %w", errUnable, err)
			select {
			case <-changed: // such as an interface that went down meanwhile
			default:
				o.fitness.unexplained++
			}
		}
		err = errors.Join(err, o.place.Unbind())
		o.report.unbound() // they may have been kept
		return err
	}
	o.fitness.fit()
	o.report.able()
	return nil
}

// stay keeps the addresses in place until held ends. An error says that they cannot stay.
func (o *owner) stay(held context.Context, t hold.Tenure) error {
	d := defence{policy: o.cfg.Conflict}
	defer o.report.remark("")
	var claims <-chan *ConflictError
	if c, ok := o.place.(Contested); ok {
		claims = c.Claims()
		for len(claims) > 0 {
			<-claims // of an earlier tenure
		}
	}
	moves, _ := o.place.(movable)
	noticed, _ := o.place.(noticed)
	returns, _ := t.(interface{ Returned() <-chan struct{} })
	notices, _ := t.(interface{ NoticeChanged() <-chan struct{} })
	var outdated <-chan struct{} // kept until it fires, so that no change is missed
	if notices != nil && noticed != nil {
		outdated = notices.NoticeChanged()
	}
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
		changed := o.place.Changed()
		var returned <-chan struct{}
		if returns != nil {
			returned = returns.Returned()
		}
		var later <-chan time.Time
		if until := t.Deadline(); time.Until(until) > 0 {
			wait, err := o.place.Extend(until)
			if err != nil {
				return err
			}
			if wait > 0 {
				renewed, later = nil, time.After(wait)
			}
		}
		// Mend is called in every round. So it also repairs what went missing before changed was
		// made.
		mended, err := o.place.Mend(held)
		if err != nil {
			return err
		}
		if mended {
			o.report.event(Event{Kind: Mended, Fence: t.Fence()})
		}
		if moves != nil && moves.stale() {
			announcements.again(time.Now())
			again.Reset(time.Until(announcements.next()))
		}
		select {
		case <-held.Done():
			return nil
		case <-renewed:
		case <-later:
		case <-changed:
		case <-returned:
			// A node has returned. Machines on its side of a partition may look for the addresses
			// there.
			announcements.again(time.Now())
			again.Reset(time.Until(announcements.next()))
		case <-outdated:
			outdated = notices.NoticeChanged()
			noticed.setDeathNotice(t.DeathNotice())
		case c := <-claims:
			if !time.Now().Before(t.Deadline()) {
				continue // the other machine may be the next owner
			}
			announce, report, yield := d.observe(c, time.Now())
			over.Reset(conflictOver)
			if announce {
				o.announce(t)
			}
			if report {
				o.report.eventWith(Event{Kind: Conflict, Fence: t.Fence(), Err: c}, func(a *hold.Addresses) {
					if !c.Probe {
						a.Conflict = c.MAC.String()
					}
				})
				o.report.remark(c.Error())
			}
			if yield {
				return fmt.Errorf("%w: %w", errConflict, c)
			}
		case <-over.C:
			if d.over(time.Now()) {
				o.cfg.Logger.Info("floating address: no other machine claims it any more", "addrs", o.cfg.addrs())
				o.report.claimed("")
				o.report.remark("")
			}
		case <-again.C:
			o.announce(t)
			announcements.announced(time.Now())
			again.Reset(time.Until(announcements.next()))
		}
	}
}

// announce tells the neighbours again where the addresses are.
func (o *owner) announce(t hold.Tenure) {
	if err := o.place.Announce(); err != nil {
		o.report.event(Event{Kind: Failed, Fence: t.Fence(), Err: err})
	}
}

// handOver drains the clients and gives the addresses up. It returns errExpired if the lease ends
// before that.
func (o *owner) handOver(held context.Context, t hold.Tenure) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(held))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- o.leave(ctx) }()
	for {
		renewed, until := t.Renewed(), t.Deadline()
		if time.Until(until) > 0 {
			o.place.Extend(until) // if it fails, the kernel ends the lease
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
			o.place.Unbind() // before done: the drain may ignore its context
			<-done
			return errExpired
		}
	}
}

// leave does what handOver does, without regard to the lease.
func (o *owner) leave(ctx context.Context) error {
	// If the interface has failed, no client can be reached, and every moment counts as an outage.
	if o.place.Usable() == nil {
		o.clients.drain(ctx, o.cfg.DrainTime)
	}
	if err := o.place.Quiesce(ctx); err != nil {
		return err
	}
	o.clients.drain(ctx, finishTime)
	return o.place.Release(ctx)
}
