package vip_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/flotilla-ha/flotilla/internal/netlab"
	"github.com/flotilla-ha/flotilla/internal/netlab/labnode"
)

// A node does not take an address that another machine answers for, and reports that. It takes the
// address when the other machine has given it up.
func TestProbe(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	s := newIdleSite(t, 1, labnode.Cluster{Units: units(1), Probe: true})
	s.must(s.lab.Clients[1].AddAddr(units(1)[0][0]))
	s.start(0)
	s.poll("the conflict is reported", func() bool { return strings.Contains(s.procs[0].Output(), "floating address: conflict") })
	if n := len(s.watch.Owners(s.addrs[0])); n != 0 && s.watch.Owners(s.addrs[0])[0] == s.lab.Nodes[0] {
		t.Error("the node has it all the same")
	}
	s.must(s.lab.Clients[1].DelAddr(units(1)[0][0]))
	s.owners("when the other is gone", nil)
}

// said waits until node 0 has logged an event that many times.
func (s *site) said(what string, times int) {
	s.Helper()
	s.poll(fmt.Sprintf("%q is said %d times", what, times), func() bool {
		return strings.Count(s.procs[0].Output(), "floating address: "+what) >= times
	})
}

// An interface that disappears is replaced by another one in the same subnet, whether that comes
// later or is there already.
func TestInterfaceReplaced(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	addr := netip.MustParsePrefix("10.88.0.51/24")
	s := newSite(t, 1, labnode.Cluster{Units: labnode.Units{{addr}}})
	node := s.lab.Nodes[0]
	plug := func(name, own string) {
		t.Helper()
		s.must(node.Do(func() error {
			if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "peer"}); err != nil {
				return err
			}
			for _, n := range []string{name + "peer", name} {
				l, err := netlink.LinkByName(n)
				if err == nil {
					err = netlink.LinkSetUp(l)
				}
				if err != nil {
					return err
				}
			}
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			a, err := netlink.ParseAddr(own)
			if err != nil {
				return err
			}
			return netlink.AddrAdd(l, a)
		}))
	}
	unplug := func(name string) {
		t.Helper()
		s.must(node.Do(func() error {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			return netlink.LinkDel(l)
		}))
	}
	on := func(name string) {
		t.Helper()
		s.poll(fmt.Sprintf("%v is on %s", addr.Addr(), name), func() (there bool) {
			node.Do(func() error {
				l, err := netlink.LinkByName(name)
				if err != nil {
					return err
				}
				all, err := netlink.AddrList(l, netlink.FAMILY_V4)
				there = slices.ContainsFunc(all, func(a netlink.Addr) bool { return a.IP.Equal(addr.Addr().AsSlice()) })
				return err
			})
			return there
		})
	}
	s.said("unusable", 1)
	plug("lan0", "10.88.0.11/24")
	on("lan0")
	unplug("lan0")
	s.said("unusable", 2)
	plug("lan1", "10.88.0.11/24")
	on("lan1")
	plug("lan2", "10.88.0.12/24") // the address stays where it is
	unplug("lan1")
	on("lan2")
	unplug("lan2")
	s.poll("nobody has it without an interface", func() bool { return len(s.watch.Owners(addr.Addr())) == 0 })
	s.single()
}

// An interface is found by its subnet under any name. After a change of its name its addresses are
// fenced, and answered for, as before.
func TestRename(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	s := newSite(t, 1, labnode.Cluster{Units: units(1)})
	s.owners("at first", nil)
	node := s.lab.Nodes[0]
	link := func(name string, do func(l netlink.Link) error) {
		t.Helper()
		s.must(node.Do(func() error {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			return do(l)
		}))
	}
	s.said("bound", 1)
	for i, names := range [][2]string{{"eth0", "lan0"}, {"lan0", "eth0"}} {
		link(names[0], netlink.LinkSetDown)
		s.said("unusable", i+1)
		link(names[0], func(l netlink.Link) error { return netlink.LinkSetName(l, names[1]) })
		link(names[1], netlink.LinkSetUp)
		s.said("bound", i+2)
		s.owners("under the name "+names[1], nil)
		// Not over IPv6: the kernel has removed the node's own IPv6 address, and nothing puts it
		// back here.
		p, err := s.lab.Clients[0].ProbeUDP(netip.AddrPortFrom(s.addrs[0], netlab.Port), 0)
		s.must(err)
		s.poll(fmt.Sprintf("%v answers", s.addrs[0]), func() bool { return p.Latest().By == node.Name })
		s.must(p.Close())
	}
}
