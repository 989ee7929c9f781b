package vip

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/fence"
	"github.com/flotilla-ha/flotilla/internal/guard"
	"github.com/flotilla-ha/flotilla/internal/l2"
)

const (
	localTime   = 100 * time.Millisecond // for the kernel to accept packets for an IPv6 address
	localEvery  = 200 * time.Microsecond
	removeEvery = 50 * time.Millisecond

	askFor  = 3 * time.Second // after the addresses have been put in place
	askMost = 64              // neighbours at a time
)

// placement puts the addresses of a unit on an interface and removes them. Its methods are called
// one at a time.
type placement struct {
	entry  *entry
	system *system
	addrs  []netip.Addr
	first  netip.Prefix // the address by whose subnet the interface is found
	ifname string       // Unit.Interface
	log    *slog.Logger

	on      nic
	link    *l2.Link  // on it; nil: not prepared
	placed  time.Time // when bind or mend has put the addresses in place
	refresh time.Time // when to renew the kernel's lifetimes of addresses that are kept
}

// prepare finds the interface, opens it for frames, and closes the addresses there in the fence.
func (p *placement) prepare() error {
	n, err := findNIC(p.ifname, p.first, p.on.index)
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
	if err := p.system.table.guard(n.name, p.addrs); err != nil {
		link.Close()
		return err
	}
	p.on, p.link = n, link
	return nil
}

func (p *placement) unlink() {
	if p.link != nil {
		p.link.Close()
		p.link = nil
	}
}

// bind puts the addresses in place until the lease ends, opens them in the fence, and announces
// them.
func (p *placement) bind(until time.Time) error {
	if err := p.prepare(); err != nil {
		return err
	}
	var placed []guard.Addr
	for _, a := range p.addrs {
		placed = append(placed, guard.Addr{Index: p.on.index, Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	// In this order. If this process has stood still, the guard's deadline has passed, and it would
	// at once remove the addresses that it is given.
	if err := p.system.lease.extend(p.entry, until, false); err != nil {
		return err
	}
	if err := p.system.guard.place(p.entry, placed, p.log); err != nil {
		return err
	}
	if err := p.put(); err != nil {
		return err
	}
	p.placed = time.Now()
	p.awaitLocal()
	if err := p.system.table.set(fence.Serving, 0, p.addrs); err != nil {
		return err
	}
	if err := p.announce(); err != nil {
		return err
	}
	p.system.bound(p.entry, p.on)
	return nil
}

// put adds the addresses to the kernel, or renews their lifetimes.
func (p *placement) put() error {
	now := time.Now()
	if !p.covered() {
		return errExpired // this process stood still
	}
	placed := p.system.units.placed(p.entry)
	life, every := p.system.lifetimes.length(p.system.lease.deadline().Sub(now))
	failed, err := p.system.rtnl.put(placed, life)
	if err != nil {
		return err
	}
	for _, a := range placed {
		if why := failed[a]; why != nil {
			return p.on.refused("put", a.Prefix.Addr(), why)
		}
	}
	if !p.covered() {
		// It stood still meanwhile, and the guard may have removed them before they were put there.
		return errors.Join(errExpired, p.remove())
	}
	p.system.lifetimes.set(p.entry, true)
	p.refresh = now.Add(every)
	return nil
}

// covered reports whether the lease lasts, as last extended.
func (p *placement) covered() bool { return p.system.lease.covers(p.entry) }

// check does what put does first, with addresses that no machine has.
func (p *placement) check() error {
	if err := p.prepare(); err != nil {
		return err
	}
	all := dummies(p.on.index, p.addrs)
	failed, err := p.system.rtnl.put(all, shortestLife)
	if err != nil {
		return err
	}
	for _, a := range all {
		if err := failed[a]; err != nil {
			return p.on.refused("put addresses such as", a.Prefix.Addr(), err)
		}
		if err := p.on.remove(a.Prefix); err != nil {
			return p.on.refused("remove addresses such as", a.Prefix.Addr(), err)
		}
	}
	return nil
}

// askAgain asks for the neighbours that the kernel is asking for. The kernel may have had something
// to send before the addresses were here, such as the rest of a connection to an address that has
// moved. Its question was then fenced, could not be answered, or was never sent: for IPv6 it takes
// the address of what it sends, or that of the link, which is not usable in the first seconds after
// a link has come up. The kernel would ask again a second later, and keep its answers to clients
// until then.
func (p *placement) askAgain() {
	all, err := netlink.NeighList(p.on.index, netlink.FAMILY_ALL)
	for _, neighbour := range unanswered(all) {
		i := slices.IndexFunc(p.addrs, func(a netip.Addr) bool { return a.Is4() == neighbour.Is4() })
		if i < 0 || err != nil || !p.covered() {
			continue
		}
		err = p.link.Ask(p.addrs[i], neighbour)
	}
	if err != nil { // some neighbours may be reached late
		p.log.Debug("neighbours could not be asked for again", "interface", p.on.name, "err", err)
	}
}

// unanswered returns the neighbours that the kernel is asking for, but not more than askMost.
func unanswered(all []netlink.Neigh) (addrs []netip.Addr) {
	for _, n := range all {
		if a, ok := netip.AddrFromSlice(n.IP); ok && n.State == netlink.NUD_INCOMPLETE && len(addrs) < askMost {
			addrs = append(addrs, a.Unmap())
		}
	}
	return addrs
}

// awaitLocal waits until the kernel accepts packets for the addresses. For IPv6 that is a little
// later than it has them. A neighbour that gets the announcement earlier sends in vain.
func (p *placement) awaitLocal() {
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

// announce tells the neighbours where the addresses are, if the lease lasts. For a while after they
// have been put in place, it also asks for the neighbours that the kernel is asking for.
func (p *placement) announce() error {
	if !p.covered() {
		return nil
	}
	err := p.link.Announce(p.addrs...)
	if time.Since(p.placed) < askFor {
		p.askAgain()
	}
	return err
}

// mend puts addresses back that are missing. It reports whether there were any.
func (p *placement) mend(missing bool) (bool, error) {
	if !p.covered() || !missing && p.there() {
		return false, nil
	}
	if err := p.put(); err != nil {
		return false, err
	}
	p.placed = time.Now()
	p.awaitLocal()
	return true, p.announce()
}

// there reports whether all addresses are in the kernel.
func (p *placement) there() bool {
	all, err := netlink.AddrList(onLink(p.on), netlink.FAMILY_ALL)
	if err != nil {
		return false
	}
	for _, a := range p.addrs {
		want := netip.PrefixFrom(a, a.BitLen())
		if !slices.ContainsFunc(all, func(have netlink.Addr) bool { return prefixOf(have.IPNet) == want }) {
			return false
		}
	}
	return true
}

// away closes the addresses in the fence and removes them from the kernel, if they are there.
func (p *placement) away() error {
	if len(p.system.units.placed(p.entry)) == 0 {
		return nil
	}
	silent := p.system.table.set(fence.Closed, 0, p.addrs)
	if errors.Is(silent, fence.ErrNotGuarded) {
		silent = nil
	}
	err := p.remove()
	// Without a fence nothing else silences them, and the caller gives the role up next.
	for !p.system.table.fenced() && err != nil && time.Now().Before(p.system.lifetimes.over()) {
		time.Sleep(removeEvery)
		err = p.remove()
	}
	if err != nil {
		return errors.Join(err, silent) // the guard still knows them
	}
	p.system.guard.place(p.entry, nil, p.log)
	return silent
}

// remove removes the addresses from the kernel.
func (p *placement) remove() error {
	p.system.lifetimes.set(p.entry, false)
	var errs []error
	for _, a := range p.addrs {
		if err := p.on.remove(netip.PrefixFrom(a, a.BitLen())); err != nil {
			errs = append(errs, p.on.refused("remove", a, err))
		}
	}
	return errors.Join(errs...)
}
