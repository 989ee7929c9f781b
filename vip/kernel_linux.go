package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
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
)

// kernel is the Binder of this machine's kernel.
type kernel struct{}

// Attach implements Binder.
func (kernel) Attach(ctx context.Context, u Unit) (Place, error) {
	p := &kernelPlace{unit: u, changed: make(chan struct{})}
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
	until    time.Time    // the lease, as last heard; zero: there is nothing to have it for
	kept     bool         // there is no lease, and the addresses stay until then
	stays    bool         // Run asks when to extend
	changed  chan struct{}

	// mu guards the rest, and is held across the kernel's answers: only one thing is done to the addresses at a time.
	mu       sync.Mutex
	on       nic
	link     *l2.Link // on it, and the fence is there; nil: not yet
	bound    bool
	refresh  time.Time     // when the kernel's lifetimes are to be renewed
	ends     time.Time     // when the kernel has removed the addresses by itself
	relay    *l2.Relay     // attempts are kept since Quiesce
	released chan struct{} // closed when what Release began is over; nil: it has not begun
	cancel   context.CancelFunc
}

// wake has whoever waits for a change look. machine.mu is held.
func (p *kernelPlace) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// clean removes what a former life of the program has left of the addresses. What somebody else has put there is not touched.
func (p *kernelPlace) clean() error {
	return eachAddr(p.addrs, func(l netlink.Link, a netlink.Addr, left bool) error {
		if !left {
			return fmt.Errorf("%v is configured on %s, and not by this program: take it away there, for only the cluster should put it anywhere", prefixOf(a.IPNet), l.Attrs().Name)
		}
		return removeFrom(l, a, p.unit.Log)
	})
}

// removeLeft removes those of the addresses that a program has left.
func removeLeft(addrs []netip.Addr, log *slog.Logger) error {
	return eachAddr(addrs, func(l netlink.Link, a netlink.Addr, left bool) error {
		if !left {
			return nil
		}
		return removeFrom(l, a, log)
	})
}

func removeFrom(l netlink.Link, a netlink.Addr, log *slog.Logger) error {
	if err := netlink.AddrDel(l, &a); err != nil && !gone(err) {
		return rights(fmt.Sprintf("remove %v, which a former life of the program has left on %s", prefixOf(a.IPNet), l.Attrs().Name), err)
	}
	log.Info("removed an address that a former life of the program had left", "addr", prefixOf(a.IPNet), "interface", l.Attrs().Name)
	return nil
}

// eachAddr calls f with those of the addresses that are on an interface, and whether they are as a program of this kind leaves them: alone in their
// prefix, and with a lifetime.
func eachAddr(addrs []netip.Addr, f func(l netlink.Link, a netlink.Addr, left bool) error) error {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return rights("list the interfaces", err)
	}
	for _, l := range links {
		all, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return rights("list the addresses of "+l.Attrs().Name, err)
		}
		for _, a := range all {
			prefix := prefixOf(a.IPNet)
			if !slices.Contains(addrs, prefix.Addr()) {
				continue
			}
			if err := f(l, a, prefix.IsSingleIP() && a.ValidLft > 0 && a.ValidLft != math.MaxUint32); err != nil {
				return err
			}
		}
	}
	return nil
}

// gone reports whether an error says that there was nothing to remove.
func gone(err error) bool { return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) }

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
	machine.bequeath(g.Will(), p.unit.Log)
	return nil
}

// put has the addresses in the kernel, with a new lifetime. mu is held.
func (p *kernelPlace) put() error {
	life, every := fencedLife, fencedEvery
	if machine.fenced() == nil {
		life, every = bareLife, bareEvery
	}
	now := time.Now()
	if !p.lasts() {
		return errLapsed // this process stood still
	}
	for _, a := range p.addrs {
		addr := &netlink.Addr{
			IPNet:    &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
			ValidLft: int(life / time.Second), // PreferedLft 0: never chosen as a source
			Flags:    unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE,
		}
		if err := netlink.AddrReplace(onLink(p.on), addr); err != nil {
			return rights(fmt.Sprintf("put %v on %s", a, p.on.name), err)
		}
	}
	if !p.lasts() {
		return errors.Join(errLapsed, p.remove()) // it stood still in between, and whoever took them away may have done so before
	}
	p.refresh, p.ends = machine.beat(now, every), time.Now().Add(life+bareLate)
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

// onLink names an interface to netlink.
func onLink(n nic) netlink.Link {
	return &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: n.index, Name: n.name}}
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
	if !time.Now().Before(p.refresh) {
		if err := p.put(); err != nil {
			return 0, err
		}
	}
	if machine.drives(p) {
		return 0, nil
	}
	return max(time.Until(p.refresh), time.Millisecond), nil
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

// Quiesce implements Place.
func (p *kernelPlace) Quiesce(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.bound || p.relay != nil {
		return nil
	}
	var err error
	if p.relay, err = p.link.Hold(p.addrs...); err != nil {
		return err
	}
	return machine.set(fence.Quiet, 0, p.addrs)
}

// Release implements Place. Without a fence the addresses go at once.
func (p *kernelPlace) Release(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.bound {
		return nil
	}
	p.bound = false
	machine.lapse(p)
	if machine.fenced() == nil {
		if err := p.remove(); err != nil {
			return err
		}
	} else if err := machine.set(fence.Muted, 2*releaseTime, p.addrs); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	relay, done := p.relay, make(chan struct{})
	p.relay, p.released, p.cancel = nil, done, cancel
	go func() {
		defer close(done)
		defer cancel()
		if relay != nil {
			if relay.Await(ctx) == nil {
				select {
				case <-time.After(tailTime):
				case <-ctx.Done():
				}
			}
			s := relay.Stats()
			p.unit.Log.Debug("passed connection attempts on to the next owner", "kept", s.Kept, "forwarded", s.Forwarded, "lost", s.Lost)
			relay.Close()
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.bound {
			p.away()
		}
	}()
	return nil
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
	machine.lapse(p)
	if p.relay != nil {
		p.relay.Close()
		p.relay = nil
	}
	err := p.away()
	p.mu.Unlock()
	p.endRelease()
	return err
}

// away silences the addresses and takes them out of the kernel. mu is held.
func (p *kernelPlace) away() error {
	machine.mu.Lock()
	there := len(p.placed) > 0
	machine.mu.Unlock()
	if !there {
		return nil
	}
	silent := machine.set(fence.Closed, 0, p.addrs)
	if errors.Is(silent, fence.ErrNotGuarded) {
		silent = nil
	}
	err := p.remove()
	// Nothing else silences them without a fence, and whoever calls gives the role up next.
	for machine.fenced() == nil && err != nil && time.Now().Before(p.ends) {
		time.Sleep(removeEvery)
		err = p.remove()
	}
	if err != nil {
		return errors.Join(err, silent) // the guard keeps them in mind
	}
	machine.place(p, nil)
	return silent
}

// remove takes the addresses out of the kernel. mu is held.
func (p *kernelPlace) remove() error {
	var errs []error
	for _, a := range p.addrs {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
		if err := netlink.AddrDel(onLink(p.on), addr); err != nil && !gone(err) {
			errs = append(errs, rights(fmt.Sprintf("take %v off %s", a, p.on.name), err))
		}
	}
	return errors.Join(errs...)
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
	if f := machine.fenced(); f != nil && err == nil { // what could not be taken away stays fenced
		if e := f.Unguard(p.addrs...); e != nil && !errors.Is(e, fence.ErrNotGuarded) {
			err = errors.Join(err, e)
		}
	}
	p.mu.Lock()
	p.unlink()
	p.mu.Unlock()
	if e := machine.close(p); e != nil && !strings.Contains(e.Error(), net.ErrClosed.Error()) {
		err = errors.Join(err, e)
	}
	return err
}
