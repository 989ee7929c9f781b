package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/guard"
)

// watch hears of changes of this machine's interfaces and their addresses.
type watch struct {
	done  chan struct{}
	ended chan struct{}
}

// deafPause is between two attempts to hear again.
const deafPause = 100 * time.Millisecond

// newWatch begins to call changed: with an address that was removed, or with none when anything else may be different. Floating addresses that are put in place or
// refreshed are no news. A subscription ends when its news are not taken fast enough, as when this process stands still: another is made then, and deaf called.
func newWatch(changed func(gone guard.Addr), deaf func()) (*watch, error) {
	w := &watch{done: make(chan struct{}), ended: make(chan struct{})}
	s, err := subscribe()
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(w.ended)
		for {
			lost := s.hear(w.done, changed)
			s.end()
			if !lost {
				return
			}
			for s, err = subscribe(); err != nil; s, err = subscribe() {
				select {
				case <-time.After(deafPause):
				case <-w.done:
					return
				}
			}
			deaf()
		}
	}()
	return w, nil
}

// subscription is one to the kernel's news.
type subscription struct {
	done  chan struct{}
	links chan netlink.LinkUpdate
	addrs chan netlink.AddrUpdate
}

func subscribe() (*subscription, error) {
	s := &subscription{make(chan struct{}), make(chan netlink.LinkUpdate, 64), make(chan netlink.AddrUpdate, 64)}
	// Why one ends is told by its channel, which is closed then.
	err := netlink.LinkSubscribeWithOptions(s.links, s.done, netlink.LinkSubscribeOptions{ErrorCallback: func(error) {}})
	if err == nil {
		if err = netlink.AddrSubscribeWithOptions(s.addrs, s.done, netlink.AddrSubscribeOptions{ErrorCallback: func(error) {}}); err != nil {
			close(s.addrs)
		}
	} else {
		close(s.links)
		close(s.addrs)
	}
	if err != nil {
		s.end()
		return nil, fmt.Errorf("the kernel does not tell of its interfaces: %w", err)
	}
	return s, nil
}

// end ends it, and waits until nobody writes to its channels.
func (s *subscription) end() {
	close(s.done)
	for range s.links {
	}
	for range s.addrs {
	}
}

// hear calls changed until done is closed, or, and then it reports true, one of the two has ended by itself.
func (s *subscription) hear(done <-chan struct{}, changed func(gone guard.Addr)) (lost bool) {
	for {
		select {
		case _, ok := <-s.links:
			if !ok {
				return true
			}
			changed(guard.Addr{})
		case u, ok := <-s.addrs:
			if !ok {
				return true
			}
			gone := guard.Addr{Index: u.LinkIndex, Prefix: prefixOf(&u.LinkAddress)}
			switch {
			case !u.NewAddr:
				changed(gone)
			case !gone.Prefix.IsSingleIP():
				changed(guard.Addr{}) // another subnet
			}
		case <-done:
			return false
		}
	}
}

func (w *watch) close() error {
	close(w.done)
	<-w.ended
	return nil
}

// prefixOf is n as a netip.Prefix; invalid if it is none.
func prefixOf(n *net.IPNet) netip.Prefix {
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	if !ok {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(addr.Unmap(), ones)
}

// nic is an interface that addresses can be put on.
type nic struct {
	index int
	name  string
}

// findNIC returns the interface of that name, or the one that has an address in the subnet of an address: not the address itself, which may be there already. Of
// several it is the first that works, but rather that with the index last, where the address is.
func findNIC(name string, addr netip.Prefix, last int) (nic, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nic{}, rights("list the interfaces", err)
	}
	var works, idle nic
	var why error
	for _, l := range links {
		a := l.Attrs()
		if name != "" && a.Name != name {
			continue
		}
		if name == "" {
			found, err := inSubnet(l, addr)
			if err != nil {
				return nic{}, err
			}
			if !found {
				continue
			}
		}
		n := nic{a.Index, a.Name}
		switch {
		case a.RawFlags&unix.IFF_UP != 0 && a.RawFlags&unix.IFF_LOWER_UP != 0:
			if works.index == 0 || n.index == last {
				works = n
			}
		case why != nil:
		case a.RawFlags&unix.IFF_UP == 0:
			idle, why = n, fmt.Errorf("the interface %s is down", a.Name)
		default:
			idle, why = n, fmt.Errorf("the interface %s has no carrier: a cable, or its other end, is missing", a.Name)
		}
	}
	switch {
	case works.index != 0:
		return works, nil
	case why != nil:
		return idle, why
	}
	if name != "" {
		return nic{}, fmt.Errorf("there is no interface %s", name)
	}
	return nic{}, fmt.Errorf("no interface has an address in %v; give one, or name the interface", addr.Masked())
}

// inSubnet reports whether an interface has another address in the subnet.
func inSubnet(l netlink.Link, addr netip.Prefix) (bool, error) {
	family := netlink.FAMILY_V4
	if addr.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	addrs, err := netlink.AddrList(l, family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return false, rights("list the addresses of "+l.Attrs().Name, err)
	}
	for _, a := range addrs {
		p := prefixOf(a.IPNet)
		if p.Addr() != addr.Addr() && !p.IsSingleIP() && addr.Masked().Contains(p.Addr()) {
			return true, nil
		}
	}
	return false, nil
}

// checkRights finds out whether this process may do what is needed, by doing next to nothing.
func checkRights() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return rights("open a packet socket", err)
	}
	unix.Close(fd)
	nowhere := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 255), Mask: net.CIDRMask(32, 32)}}
	if err := netlink.AddrDel(onLink(nic{index: 1}), nowhere); errors.Is(err, os.ErrPermission) {
		return rights("change addresses", err)
	}
	return nil
}

// rights explains an error of the kernel that means a lack of them.
func rights(what string, err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("cannot %s: a capability is missing, NET_ADMIN or NET_RAW (systemd: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW; docker: --cap-add NET_ADMIN --cap-add NET_RAW; or setcap cap_net_admin,cap_net_raw+ep on the program): %w", what, err)
	}
	return fmt.Errorf("cannot %s: %w", what, err)
}
