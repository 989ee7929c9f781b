package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/fence"
	"github.com/flotilla-ha/flotilla/internal/guard"
	"github.com/flotilla-ha/flotilla/internal/l2"
)

const (
	releaseTime = time.Second           // a released address waits for its next owner
	tailTime    = 20 * time.Millisecond // frames that were sent before clients heard of the next owner
	probeTries  = 3
	probeWait   = 30 * time.Millisecond
	localTime   = 100 * time.Millisecond // for an IPv6 address to take packets
	localEvery  = 200 * time.Microsecond
	removeEvery = 50 * time.Millisecond
	restTime    = time.Minute // in which a place that does not tell of renewals looks at nothing
)

// kernel is the Binder of this machine's kernel.
type kernel struct{}

// Attach implements Binder.
func (kernel) Attach(ctx context.Context, u Unit) (Place, error) {
	p := &kernelPlace{unit: u, changed: make(chan struct{}), claims: make(chan *ConflictError, maxClaims)}
	for _, a := range u.Addrs {
		p.addrs = append(p.addrs, a.Addr())
	}
	if err := machine.open(ctx, p); err != nil {
		return nil, err
	}
	if err := p.clean(); err != nil {
		return nil, errors.Join(err, machine.close(p))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.prepare(); err != nil {
		u.Log.Info("the addresses cannot be put in place yet", "why", err) // Usable says so, or Bind
	}
	return p, nil
}

// kernelPlace is a unit on this machine.
type kernelPlace struct {
	unit  Unit
	addrs []netip.Addr

	// machine.mu guards these.
	placed   []guard.Addr // what is in the kernel, or about to be, or may be there yet
	removals uint64       // of the guard, as last looked at
	missing  bool         // something of it is not there
	unsure   bool         // something may not be there
	moved    bool         // neighbours may look for it in the wrong place
	lives    bool         // it is there, and its lifetime is to be renewed
	since    time.Time    // it is in place, and announced; zero: it is not
	where    nic          // that was
	until    time.Time    // the lease, as last heard; zero: there is nothing to have it for
	kept     bool         // there is no lease, and the addresses stay until then
	stays    bool         // Run asks when to extend
	changed  chan struct{}

	claims chan *ConflictError // of other machines

	// mu guards the rest, and is held across the kernel's answers: only one thing is done to the addresses at a time.
	mu       sync.Mutex
	on       nic
	link     *l2.Link // on it, and the fence is there; nil: not yet
	bound    bool
	refresh  time.Time     // when the kernel's lifetimes are to be renewed, of what is kept
	relay    *l2.Relay     // attempts are kept since Quiesce
	released chan struct{} // closed when what Release began is over; nil: it has not begun
	cancel   context.CancelFunc
}

// wake has whoever waits for a change look. machine.mu is held.
func (p *kernelPlace) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Linger implements Place. A fence ends early rather than late.
func (p *kernelPlace) Linger() time.Duration {
	if machine.fenced() != nil {
		return 0
	}
	return bareLife + bareLate
}

// Guarded implements Guarded.
func (p *kernelPlace) Guarded() bool { return !p.unit.NoGuard }

// Usable implements Place.
func (p *kernelPlace) Usable() error {
	p.mu.Lock()
	on, bound := p.on, p.bound
	p.mu.Unlock()
	last := 0
	if bound {
		last = on.index
	}
	n, err := findNIC(p.unit.Interface, p.unit.Addrs[0], last)
	if err == nil && bound && n.index != on.index {
		err = fmt.Errorf("the interface %s does not work any more, or is not there", on.name)
	}
	for _, a := range p.addrs {
		if err == nil {
			err = n.takes(a)
		}
	}
	return err
}

// Changed implements Place.
func (p *kernelPlace) Changed() <-chan struct{} {
	machine.mu.Lock()
	defer machine.mu.Unlock()
	return p.changed
}

// Probe implements Prober.
func (p *kernelPlace) Probe(ctx context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.prepare(); err != nil {
		return "", err
	}
	for _, a := range p.addrs {
		mac, err := p.link.Probe(ctx, a, probeTries, probeWait)
		if err != nil {
			return "", err
		}
		if mac != nil {
			return fmt.Sprintf("%s has %v", mac, a), nil
		}
	}
	return "", nil
}

// prepare looks for the interface, opens it for frames, and has the addresses fenced on it: nothing passes for them there until Bind. mu is held.
func (p *kernelPlace) prepare() error {
	n, err := findNIC(p.unit.Interface, p.unit.Addrs[0], p.on.index)
	if err != nil {
		return err
	}
	if p.link != nil && n == p.on {
		return nil
	}
	p.unlink()
	ifi, err := net.InterfaceByIndex(n.index)
	if err != nil {
		return fmt.Errorf("the interface %s: %w", n.name, err)
	}
	link, err := l2.Open(ifi)
	if err != nil {
		return err
	}
	if f := machine.fenced(); f != nil {
		if err := f.Guard(n.name, p.addrs...); err != nil {
			link.Close()
			return err
		}
	}
	p.on, p.link = n, link
	return nil
}

func (p *kernelPlace) unlink() {
	if p.link != nil {
		p.link.Close()
		p.link = nil
	}
}

// Bind implements Place.
func (p *kernelPlace) Bind(ctx context.Context, g Grant) error {
	p.endRelease()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.prepare(); err != nil {
		return err
	}
	var placed []guard.Addr
	for _, a := range p.addrs {
		placed = append(placed, guard.Addr{Index: p.on.index, Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	// In this order: after a time of standing still the guard's deadline has passed, and addresses that it is given then it removes at once.
	if err := machine.extend(p, g.Until, false); err != nil {
		return err
	}
	if err := machine.place(p, placed); err != nil {
		return err
	}
	if err := p.put(); err != nil {
		return err
	}
	p.awaitLocal()
	if err := machine.set(fence.Serving, 0, p.addrs); err != nil {
		return err
	}
	p.bound = true
	p.askAnew()
	if err := p.announce(); err != nil {
		return err
	}
	machine.bound(p, p.on)
	machine.bequeath(g.Will(), p.unit.Log)
	return nil
}

// put has the addresses in the kernel, with a new lifetime. mu is held.
func (p *kernelPlace) put() error {
	now := time.Now()
	if !p.lasts() {
		return errLapsed // this process stood still
	}
	machine.mu.Lock()
	placed, left := p.placed, machine.told.Sub(now)
	machine.mu.Unlock()
	life, every := machine.lifetime(left)
	failed, err := machine.rtnl.put(placed, life)
	if err != nil {
		return err
	}
	for _, a := range placed {
		if why := failed[a]; why != nil {
			return p.on.refused("put", a.Prefix.Addr(), why)
		}
	}
	if !p.lasts() {
		return errors.Join(errLapsed, p.remove()) // it stood still in between, and whoever took them away may have done so before
	}
	machine.live(p, true)
	p.refresh = now.Add(every)
	return nil
}

// Check implements Checker: it does what Bind would do first, with addresses that nobody has.
func (p *kernelPlace) Check(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bound {
		return nil
	}
	if err := p.prepare(); err != nil {
		return err
	}
	all := dummies(p.on.index, p.addrs)
	failed, err := machine.rtnl.put(all, shortestLife)
	if err != nil {
		return err
	}
	for _, a := range all {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.Prefix.Addr().AsSlice(), Mask: net.CIDRMask(a.Prefix.Bits(), a.Prefix.Bits())}}
		if err := failed[a]; err != nil {
			return p.on.refused("put addresses such as", a.Prefix.Addr(), err)
		}
		if err := netlink.AddrDel(onLink(p.on), addr); err != nil && !gone(err) {
			return p.on.refused("remove addresses such as", a.Prefix.Addr(), err)
		}
	}
	return nil
}

// askAnew has the kernel forget the questions to neighbours that are under way on the interface. What it was to send from the addresses before they were here, such
// as the rest of an old connection, made it ask in vain, for its question was fenced or had no sender, or the answer nobody to take it, and it would ask again only a second
// after that. mu is held.
func (p *kernelPlace) askAnew() {
	all, err := netlink.NeighList(p.on.index, netlink.FAMILY_ALL)
	for _, n := range all {
		if n.State == netlink.NUD_INCOMPLETE {
			err = errors.Join(err, netlink.NeighDel(&n))
		}
	}
	if err != nil { // some answers may come late
		p.unit.Log.Debug("neighbours that are asked for could not be forgotten", "interface", p.on.name, "err", err)
	}
}

// awaitLocal waits until the kernel takes packets for the addresses: for IPv6 that begins a little after it has them. Whoever is told before
// that sends in vain.
func (p *kernelPlace) awaitLocal() {
	end := time.Now().Add(localTime)
	for _, a := range p.addrs {
		for a.Is6() && time.Now().Before(end) {
			routes, err := netlink.RouteGet(a.AsSlice())
			if err != nil || len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
				break
			}
			time.Sleep(localEvery)
		}
	}
}

// lasts reports whether the lease does, as last heard.
func (p *kernelPlace) lasts() bool {
	machine.mu.Lock()
	defer machine.mu.Unlock()
	return !p.until.IsZero() && time.Now().Before(machine.told)
}

// announce tells the neighbours, if the lease lasts. mu is held.
func (p *kernelPlace) announce() error {
	if !p.lasts() {
		return nil
	}
	return p.link.Announce(p.addrs...)
}

// Extend implements Place.
func (p *kernelPlace) Extend(until time.Time) (again time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.bound {
		return 0, nil
	}
	if err := machine.extend(p, until, false); err != nil {
		return 0, err
	}
	if machine.drives(p) {
		return 0, machine.renew()
	}
	return restTime, nil
}

// keep is Extend without a lease. While others of this program have one, the addresses stay for as long as that.
func (p *kernelPlace) keep(until time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.bound {
		return nil
	}
	if err := machine.extend(p, until, true); err != nil {
		return err
	}
	if !time.Now().Before(p.refresh) && p.lasts() {
		return p.put()
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
	return p.announce()
}

// Mend implements Place.
func (p *kernelPlace) Mend(context.Context) (bool, error) {
	machine.mu.Lock()
	missing, unsure := p.missing, p.unsure
	p.missing, p.unsure = false, false
	machine.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !missing && !unsure || !p.bound || !p.lasts() {
		return false, nil
	}
	if !missing && p.there() {
		return false, nil
	}
	if err := p.put(); err != nil {
		return false, err
	}
	p.awaitLocal()
	return true, p.announce()
}

// there reports whether all addresses are in the kernel. mu is held.
func (p *kernelPlace) there() bool {
	all, err := netlink.AddrList(onLink(p.on), netlink.FAMILY_ALL)
	if err != nil {
		return false
	}
	for _, a := range p.addrs {
		if !slices.ContainsFunc(all, func(have netlink.Addr) bool { return prefixOf(have.IPNet) == netip.PrefixFrom(a, a.BitLen()) }) {
			return false
		}
	}
	return true
}
