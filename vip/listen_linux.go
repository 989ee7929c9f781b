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
	probeEvery = 10 * time.Second // machines that have an address and announce nothing are found so
	ownEvery   = time.Second      // hardware addresses of this machine are read at most so often
)

// claimListeners notice other machines that claim the addresses in place here. There is one
// listener for each interface.
type claimListeners struct {
	find    func() map[nic][]netip.Addr // what is in place, by interface
	onClaim func(on nic, c l2.Claim)    // called for each claim by another machine
	open    func(nic) (*l2.Link, error) // for frames
	look    chan struct{}               // an element: what find returns may have changed
	log     *slog.Logger

	all map[nic]*claimListener // used by run only

	mu     sync.Mutex
	own    map[string]bool // hardware addresses that this machine has, or had
	looked time.Time
}

// claimListener is the listener of one interface.
type claimListener struct {
	listener *l2.Listener
	link     *l2.Link
	addrs    []netip.Addr
}

func newClaimListeners(
	find func() map[nic][]netip.Addr, onClaim func(nic, l2.Claim), log *slog.Logger,
) *claimListeners {
	open := func(n nic) (*l2.Link, error) {
		ifi, err := net.InterfaceByIndex(n.index)
		if err != nil {
			return nil, err
		}
		return l2.Open(ifi)
	}
	return &claimListeners{
		find: find, onClaim: onClaim, open: open, look: make(chan struct{}, 1), log: log,
		all: make(map[nic]*claimListener), own: make(map[string]bool),
	}
}

// changed makes run look at what is in place.
func (l *claimListeners) changed() {
	select {
	case l.look <- struct{}{}:
	default:
	}
}

// run listens until ctx ends.
func (l *claimListeners) run(ctx context.Context) {
	defer func() {
		for on := range l.all {
			l.end(on)
		}
	}()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		probe := false
		select {
		case <-l.look:
		case <-tick.C:
			probe = true
		case <-ctx.Done():
			return
		}
		l.update(probe)
	}
}

// update makes the listeners listen for the addresses in place. With probe they also ask who has
// them.
func (l *claimListeners) update(probe bool) {
	want := l.find()
	for on := range l.all {
		if len(want[on]) == 0 {
			l.end(on)
		}
	}
	l.isOwn(nil)
	for on, addrs := range want {
		slices.SortFunc(addrs, netip.Addr.Compare)
		err := l.listen(on, addrs)
		if err == nil && probe {
			err = l.all[on].listener.Probe()
		}
		if err != nil { // usually because the interface is down
			l.log.Debug("machines that claim floating addresses are not noticed", "interface", on.name, "err", err)
		}
	}
}

// listen makes the listener of an interface listen for addresses.
func (l *claimListeners) listen(on nic, addrs []netip.Addr) error {
	if l.all[on] == nil {
		link, err := l.open(on)
		if err != nil {
			return err
		}
		l.all[on] = &claimListener{link: link, listener: link.Listen(func(c l2.Claim) {
			if !l.isOwn(c.MAC) {
				l.onClaim(on, c)
			}
		})}
	}
	a := l.all[on]
	if slices.Equal(a.addrs, addrs) {
		return nil
	}
	err := a.listener.Set(addrs)
	if err != nil {
		l.end(on) // the next update makes another one
		return err
	}
	a.addrs = addrs
	return nil
}

func (l *claimListeners) end(on nic) {
	l.all[on].listener.Close()
	l.all[on].link.Close()
	delete(l.all, on)
}

// isOwn reports whether a hardware address belongs to an interface of this machine, or has done so
// since the program has addresses.
func (l *claimListeners) isOwn(mac net.HardwareAddr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.own[string(mac)] {
		return true
	}
	if time.Since(l.looked) < ownEvery {
		return false
	}
	l.looked = time.Now()
	links, err := netlink.LinkList()
	if err != nil {
		l.log.Debug("the hardware addresses of this machine are not known", "err", err)
	}
	for _, link := range links {
		l.own[string(link.Attrs().HardwareAddr)] = true
	}
	return l.own[string(mac)]
}
