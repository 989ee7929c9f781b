package vip

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/flotilla-ha/flotilla/internal/l2"
)

const (
	probeEvery = 10 * time.Second       // whoever has an address and announces nothing is asked for
	claimGrace = 250 * time.Millisecond // what the last owner has sent may be under way for so long
	ownEvery   = time.Second            // hardware addresses of this machine are looked at
	maxClaims  = 16                     // that wait for a Run
)

// ears hear of other machines that claim the addresses that are in place here: one listener for each interface.
type ears struct {
	find func() map[nic][]netip.Addr // what is in place, by the interface
	tell func(on nic, c l2.Claim)    // somebody who is not this machine says so
	open func(nic) (*l2.Link, error) // for frames
	look chan struct{}               // an element has what find returns looked at
	log  *slog.Logger

	all map[nic]*ear // what run alone touches

	mu     sync.Mutex
	own    map[string]bool // hardware addresses that this machine has, or has had
	looked time.Time
}

// ear is one listener.
type ear struct {
	listener *l2.Listener
	link     *l2.Link
	addrs    []netip.Addr
}

func newEars(find func() map[nic][]netip.Addr, tell func(nic, l2.Claim), log *slog.Logger) *ears {
	open := func(n nic) (*l2.Link, error) {
		ifi, err := net.InterfaceByIndex(n.index)
		if err != nil {
			return nil, err
		}
		return l2.Open(ifi)
	}
	return &ears{find: find, tell: tell, open: open, look: make(chan struct{}, 1), log: log, all: make(map[nic]*ear), own: make(map[string]bool)}
}

// changed has run look at what is in place.
func (e *ears) changed() {
	select {
	case e.look <- struct{}{}:
	default:
	}
}

// run listens until ctx ends.
func (e *ears) run(ctx context.Context) {
	defer func() {
		for on := range e.all {
			e.end(on)
		}
	}()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		probe := false
		select {
		case <-e.look:
		case <-tick.C:
			probe = true
		case <-ctx.Done():
			return
		}
		e.tend(probe)
	}
}

// tend has the listeners be about what is in place, and asks.
func (e *ears) tend(probe bool) {
	want := e.find()
	for on := range e.all {
		if len(want[on]) == 0 {
			e.end(on)
		}
	}
	e.isOwn(nil)
	for on, addrs := range want {
		slices.SortFunc(addrs, netip.Addr.Compare)
		err := e.hear(on, addrs)
		if err == nil && probe {
			err = e.all[on].listener.Probe()
		}
		if err != nil { // an interface that is down, mostly
			e.log.Debug("others that claim floating addresses are not heard", "interface", on.name, "err", err)
		}
	}
}

// hear has the listener of an interface be about addresses.
func (e *ears) hear(on nic, addrs []netip.Addr) error {
	if e.all[on] == nil {
		link, err := e.open(on)
		if err != nil {
			return err
		}
		e.all[on] = &ear{link: link, listener: link.Listen(func(c l2.Claim) {
			if !e.isOwn(c.MAC) {
				e.tell(on, c)
			}
		})}
	}
	a := e.all[on]
	if slices.Equal(a.addrs, addrs) {
		return nil
	}
	err := a.listener.Set(addrs)
	if err != nil {
		e.end(on) // another one next time
		return err
	}
	a.addrs = addrs
	return nil
}

func (e *ears) end(on nic) {
	e.all[on].listener.Close()
	e.all[on].link.Close()
	delete(e.all, on)
}

// isOwn reports whether a hardware address is this machine's, on whatever interface, or was since the program has addresses.
func (e *ears) isOwn(mac net.HardwareAddr) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.own[string(mac)] {
		return true
	}
	if time.Since(e.looked) < ownEvery {
		return false
	}
	e.looked = time.Now()
	links, err := netlink.LinkList()
	if err != nil {
		e.log.Debug("the hardware addresses of this machine are not known", "err", err)
	}
	for _, l := range links {
		e.own[string(l.Attrs().HardwareAddr)] = true
	}
	return e.own[string(mac)]
}

// inPlace returns what is in place, by the interface.
func (s *system) inPlace() map[nic][]netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[nic][]netip.Addr)
	for p := range s.places {
		if !p.since.IsZero() {
			all[p.where] = append(all[p.where], p.addrs...)
		}
	}
	return all
}

// bound notes that p is in place, and has been announced.
func (s *system) bound(p *kernelPlace, on nic) {
	s.mu.Lock()
	if p.since.IsZero() || p.where != on {
		p.since, p.where = time.Now(), on
	}
	e := s.ears
	s.mu.Unlock()
	if e != nil {
		e.changed()
	}
}

// claimed passes on what another machine says.
func (s *system) claimed(on nic, c l2.Claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !time.Now().Before(s.told) {
		return // the lease is over, and it may be the next owner who says so
	}
	for p := range s.places {
		if p.kept || p.where != on || p.since.IsZero() || time.Since(p.since) < claimGrace || !slices.Contains(p.addrs, c.Addr) {
			continue
		}
		select {
		case p.claims <- &ConflictError{Addr: c.Addr, MAC: c.MAC, Probe: c.Probe}:
		default: // Run has enough to do with those that are there
		}
	}
}

// Claims implements Contested.
func (p *kernelPlace) Claims() <-chan *ConflictError { return p.claims }

// stale reports, once, whether neighbours may have lost track of the addresses.
func (p *kernelPlace) stale() bool {
	machine.mu.Lock()
	defer machine.mu.Unlock()
	moved := p.moved
	p.moved = false
	return moved
}
