package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/fence"
	"github.com/flotilla-ha/flotilla/internal/l2"
)

const (
	releaseTime = time.Second           // for which a released address waits for its next owner
	tailTime    = 20 * time.Millisecond // for frames sent before clients knew the next owner
	probeTries  = 3
	probeWait   = 30 * time.Millisecond
	restTime    = time.Minute // until a place that does not drive the renewals looks again
)

// kernel is the Binder of this machine's kernel.
type kernel struct{}

// Attach implements Binder.
func (kernel) Attach(ctx context.Context, u Unit) (Place, error) {
	var addrs []netip.Addr
	for _, a := range u.Addrs {
		addrs = append(addrs, a.Addr())
	}
	e := newEntry(addrs)
	s, err := machine.open(ctx, e, u.NoGuard, u.Log)
	if err != nil {
		return nil, err
	}
	if err := clean(addrs, u.Log); err != nil {
		return nil, errors.Join(err, machine.close(e))
	}
	p := &kernelPlace{
		unit: u, entry: e, system: s,
		placement: placement{entry: e, system: s, addrs: addrs, first: u.Addrs[0], ifname: u.Interface, log: u.Log},
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.placement.prepare(); err != nil {
		// Usable or Bind reports it too.
		u.Log.Info("the addresses cannot be put in place yet", "why", err)
	}
	return p, nil
}

// check returns why the addresses of a unit could not be put in place, without preparing anything.
func (kernel) check(u Unit) error {
	n, err := findNIC(u.Interface, u.Addrs[0], 0)
	for _, a := range u.Addrs {
		if err == nil {
			err = n.accepts(a.Addr())
		}
	}
	return errors.Join(checkRights(), err)
}

// kernelPlace is a unit on this machine.
type kernelPlace struct {
	unit   Unit
	entry  *entry
	system *system

	// mu guards the rest. It is held while the kernel answers: only one thing is done to the
	// addresses at a time.
	mu        sync.Mutex
	placement placement
	bound     bool
	relay     *l2.Relay     // connection attempts are kept since Quiesce
	released  chan struct{} // closed when what Release began is over; nil: it has not begun
	cancel    context.CancelFunc
}

// HoldDown implements Place. A fence ends with the lease, or a little earlier.
func (p *kernelPlace) HoldDown() time.Duration {
	if p.system.table.fenced() {
		return 0
	}
	return bareLife + bareLate
}

// Guarded implements Guarded. Where no guard could be started for addresses, there may be one that
// sends a death notice for the program's other roles.
func (p *kernelPlace) Guarded() bool { return !p.unit.NoGuard && p.system.guard.exists() }

// Usable implements Place.
func (p *kernelPlace) Usable() error {
	p.mu.Lock()
	on, bound := p.placement.on, p.bound
	p.mu.Unlock()
	last := 0
	if bound {
		last = on.index
	}
	n, err := findNIC(p.unit.Interface, p.unit.Addrs[0], last)
	if err == nil && bound && n.index != on.index {
		err = fmt.Errorf("the interface %s does not work any more, or is not there", on.name)
	}
	for _, a := range p.entry.addrs {
		if err == nil {
			err = n.accepts(a)
		}
	}
	return err
}

// Changed implements Place.
func (p *kernelPlace) Changed() <-chan struct{} { return p.system.units.changed(p.entry) }

// Probe implements Prober.
func (p *kernelPlace) Probe(ctx context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.placement.prepare(); err != nil {
		return "", err
	}
	for _, a := range p.entry.addrs {
		mac, err := p.placement.link.Probe(ctx, a, probeTries, probeWait)
		if err != nil {
			return "", err
		}
		if mac != nil {
			return fmt.Sprintf("%s has %v", mac, a), nil
		}
	}
	return "", nil
}

// Check implements Checker.
func (p *kernelPlace) Check(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bound {
		return nil
	}
	return p.placement.check()
}

// Bind implements Place.
func (p *kernelPlace) Bind(_ context.Context, g Grant) error {
	p.endRelease()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.placement.bind(g.Until); err != nil {
		return err
	}
	p.bound = true
	p.system.guard.deathNotice(g.DeathNotice(), p.unit.Log)
	return nil
}

// setDeathNotice implements noticed.
func (p *kernelPlace) setDeathNotice(notice []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bound {
		p.system.guard.deathNotice(notice, p.unit.Log)
	}
}

// Extend implements Place.
func (p *kernelPlace) Extend(until time.Time) (again time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.bound {
		return 0, nil
	}
	if err := p.system.lease.extend(p.entry, until, false); err != nil {
		return 0, err
	}
	if p.system.lease.drives(p.entry) {
		return 0, p.system.lifetimes.renew()
	}
	return restTime, nil
}

// keep implements shared.
func (p *kernelPlace) keep(until time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.bound {
		return nil
	}
	if err := p.system.lease.extend(p.entry, until, true); err != nil {
		return err
	}
	if !time.Now().Before(p.placement.refresh) && p.placement.covered() {
		return p.placement.put()
	}
	return nil
}

// Announce implements Place.
func (p *kernelPlace) Announce() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.bound {
		return nil
	}
	return p.placement.announce()
}

// Claims implements Contested.
func (p *kernelPlace) Claims() <-chan *ConflictError { return p.entry.claims }

// stale implements movable.
func (p *kernelPlace) stale() bool { return p.system.units.takeMoved(p.entry) }

// Mend implements Place.
func (p *kernelPlace) Mend(context.Context) (bool, error) {
	missing, unsure := p.system.units.takeMissing(p.entry)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !missing && !unsure || !p.bound {
		return false, nil
	}
	return p.placement.mend(missing)
}

// Quiesce implements Place.
func (p *kernelPlace) Quiesce(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.bound || p.relay != nil {
		return nil
	}
	var err error
	if p.relay, err = p.placement.link.Hold(p.entry.addrs...); err != nil {
		return err
	}
	return p.system.table.set(fence.Quiet, 0, p.entry.addrs)
}

// Release implements Place. Without a fence the addresses are removed at once.
func (p *kernelPlace) Release(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.bound {
		return nil
	}
	p.bound = false
	p.system.end(p.entry)
	if !p.system.table.fenced() {
		if err := p.placement.remove(); err != nil {
			return err
		}
	} else if err := p.system.table.set(fence.Muted, 2*releaseTime, p.entry.addrs); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	relay, done := p.relay, make(chan struct{})
	p.relay, p.released, p.cancel = nil, done, cancel
	go func() {
		defer close(done)
		defer cancel()
		if relay != nil {
			p.awaitNextOwner(ctx, relay)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.bound {
			p.placement.away()
		}
	}()
	return nil
}

// awaitNextOwner passes connection attempts on until the next owner has taken over, or ctx ends.
func (p *kernelPlace) awaitNextOwner(ctx context.Context, relay *l2.Relay) {
	if relay.Await(ctx) == nil {
		select {
		case <-time.After(tailTime):
		case <-ctx.Done():
		}
	}
	s := relay.Stats()
	p.unit.Log.Debug("passed connection attempts on to the next owner",
		"kept", s.Kept, "forwarded", s.Forwarded, "lost", s.Lost)
	relay.Close()
}

// endRelease ends what Release began, and leaves the addresses to the caller.
func (p *kernelPlace) endRelease() {
	p.mu.Lock()
	released, cancel := p.released, p.cancel
	p.released, p.cancel = nil, nil
	p.mu.Unlock()
	if released != nil {
		cancel()
		<-released
	}
}

// Unbind implements Place.
func (p *kernelPlace) Unbind() error {
	p.mu.Lock()
	p.bound = false
	p.system.end(p.entry)
	if p.relay != nil {
		p.relay.Close()
		p.relay = nil
	}
	err := p.placement.away()
	p.mu.Unlock()
	p.endRelease()
	return err
}

// Close implements Place.
func (p *kernelPlace) Close() error {
	p.mu.Lock()
	released := p.released
	p.mu.Unlock()
	if released != nil {
		<-released
	}
	err := p.Unbind()
	if err == nil { // addresses that could not be removed stay fenced
		err = p.system.table.unguard(p.entry.addrs)
	}
	p.mu.Lock()
	p.placement.unlink()
	p.mu.Unlock()
	if e := machine.close(p.entry); e != nil && !strings.Contains(e.Error(), net.ErrClosed.Error()) {
		err = errors.Join(err, e)
	}
	return err
}
