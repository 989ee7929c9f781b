package vip_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/flotilla-ha/flotilla/internal/netlab"
	"github.com/flotilla-ha/flotilla/internal/netlab/labnode"
)

// stubborn makes a client believe for hours that the addresses are at some hardware address, as
// routers with long timeouts do.
func (s *site) stubborn(client *netlab.Host, at net.HardwareAddr) {
	s.Helper()
	s.must(client.Do(func() error {
		for _, family := range []string{"ipv4", "ipv6"} {
			if err := os.WriteFile("/proc/sys/net/"+family+"/neigh/eth0/base_reachable_time_ms", []byte("14400000"), 0); err != nil {
				return err
			}
		}
		l, err := netlink.LinkByName(netlab.Interface)
		if err != nil {
			return err
		}
		for _, a := range s.addrs {
			n := &netlink.Neigh{LinkIndex: l.Attrs().Index, IP: a.AsSlice(), HardwareAddr: at, State: netlink.NUD_REACHABLE}
			if err := netlink.NeighSet(n); err != nil {
				return err
			}
		}
		return nil
	}))
}

// neighbour returns where a client believes an address to be.
func (s *site) neighbour(client *netlab.Host, a netip.Addr) (mac string) {
	s.Helper()
	s.must(client.Do(func() error {
		all, err := netlink.NeighList(0, netlink.FAMILY_ALL)
		for _, n := range all {
			if n.IP.Equal(a.AsSlice()) {
				mac = n.HardwareAddr.String()
			}
		}
		return err
	}))
	return mac
}

// corrected waits until a client knows that all addresses are at some hardware address. It fails
// the test if that takes longer than most.
func (s *site) corrected(client *netlab.Host, at net.HardwareAddr, most time.Duration) {
	s.Helper()
	began := time.Now()
	for _, a := range s.addrs {
		s.poll(fmt.Sprintf("%s knows that %v is at %v", client.Name, a, at), func() bool { return s.neighbour(client, a) == at.String() })
	}
	took := time.Since(began)
	s.Logf("a client with a wrong entry knew better after %v", took)
	if took > most {
		s.Errorf("it took %v, want %v at the most", took, most)
	}
}

// A switch port that begins to forward late, as under spanning tree, does not keep clients from an
// address for long.
func TestLatePort(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	s := newIdleSite(t, 1, labnode.Cluster{Units: units(1)})
	node, client := s.lab.Nodes[0], s.lab.Clients[0]
	s.stubborn(client, s.lab.Clients[1].MAC)
	s.must(node.CutSending())
	s.start(0)
	s.owners("behind a port that does not forward", nil)
	<-time.After(8 * time.Second)
	s.must(s.lab.Heal())
	s.corrected(client, node.MAC, 3*time.Second)
}

// When the hardware address of an interface, bridge or macvlan with addresses changes, clients find
// the addresses at once.
func TestHardwareAddressChanges(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	for i, kind := range []string{"interface", "macvlan", "bridge", "bridge's port"} {
		t.Run(kind, func(t *testing.T) {
			if i >= 2 && !*long {
				t.Skip("much like another kind: it runs with -long")
			}
			s := newSite(t, 1, labnode.Cluster{Units: units(1)})
			node, client := s.lab.Nodes[0], s.lab.Clients[0]
			s.owners("at first", nil)
			name, made := netlab.Interface, netlink.Link(nil)
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "lan0"
			eth := func() netlink.Link {
				l, err := netlink.LinkByName(netlab.Interface)
				s.must(err)
				return l
			}
			switch kind {
			case "macvlan":
				s.must(node.Do(func() error { attrs.ParentIndex = eth().Attrs().Index; return nil }))
				made = &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}
			case "bridge", "bridge's port":
				made = &netlink.Bridge{LinkAttrs: attrs}
			}
			if made != nil { // another interface of the subnet, which the program finds
				name = "lan0"
				s.must(s.procs[0].Kill(syscall.SIGTERM))
				s.must(s.procs[0].Wait())
				s.must(node.Do(func() error {
					if err := netlink.LinkAdd(made); err != nil {
						return err
					}
					l, err := netlink.LinkByName(name)
					if err == nil && strings.HasPrefix(kind, "bridge") {
						err = netlink.LinkSetMaster(eth(), l)
					}
					if err == nil && kind == "bridge's port" { // its address stays then
						err = netlink.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 8, 8})
					}
					if err == nil {
						err = netlink.LinkSetUp(l)
					}
					for _, a := range []string{node.Addr4.String() + "/24", node.Addr6.String() + "/64"} {
						own, e := netlink.ParseAddr(a)
						if err == nil {
							err = e
						}
						if err == nil {
							err = netlink.AddrDel(eth(), own)
						}
						own.Flags = syscall.IFA_F_NODAD
						if own.IP.To4() != nil {
							own.Flags = 0
						}
						if err == nil {
							err = netlink.AddrAdd(l, own)
						}
					}
					return err
				}))
				s.start(0)
				s.owners("on another interface", nil)
			}
			// Neighbours accept no second change within a second, and nothing is announced for a
			// while.
			<-time.After(2500 * time.Millisecond)
			var now net.HardwareAddr
			before := s.lab.Clients[1].MAC
			s.must(node.Do(func() error {
				l, err := netlink.LinkByName(name)
				if err == nil && kind != "bridge's port" {
					before = l.Attrs().HardwareAddr
				}
				return err
			}))
			s.stubborn(client, before)
			<-time.After(1100 * time.Millisecond)
			s.must(node.Do(func() error {
				l, err := netlink.LinkByName(name)
				if err != nil {
					return err
				}
				if !strings.HasPrefix(kind, "bridge") {
					err = netlink.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 7, 7})
				} else { // one more port, with a lower address than that of eth0
					err = netlink.LinkAdd(&netlink.Veth{
						LinkAttrs: netlink.LinkAttrs{Name: "port1", HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}, PeerName: "far1",
					})
					for _, n := range []string{"far1", "port1"} {
						p, e := netlink.LinkByName(n)
						if err == nil {
							err = e
						}
						if err == nil && n == "port1" {
							err = netlink.LinkSetMaster(p, l)
						}
						if err == nil {
							err = netlink.LinkSetUp(p)
						}
					}
				}
				if err == nil {
					l, err = netlink.LinkByName(name)
				}
				if err == nil {
					now = l.Attrs().HardwareAddr
				}
				return err
			}))
			s.corrected(client, now, 300*time.Millisecond)
		})
	}
}

// After a partition, clients on the side of the last owner learn at once which node has the address
// now.
func TestPartitionHeals(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	s := newSite(t, 3, labnode.Cluster{Units: units(1), Spread: true})
	s.owners("at first", nil)
	client := s.lab.Clients[1]
	last := s.watch.Owners(s.addrs[0])[0]
	s.must(s.lab.Partition([]*netlab.Host{last, client}))
	s.owners("after the partition", func(owners []*netlab.Host) bool { return owners[0] != last })
	now := s.watch.Owners(s.addrs[0])[0]
	s.stubborn(client, last.MAC)
	<-time.After(8500 * time.Millisecond) // nothing is announced for a while
	s.must(s.lab.Heal())
	s.corrected(client, now.MAC, 2*time.Second)
	s.single()
}

// claimed waits until the node has reported that another machine has some addresses, or wants them.
func (s *site) claimed(what string, other *netlab.Host, addrs ...netip.Addr) {
	s.Helper()
	for _, a := range addrs {
		s.poll(fmt.Sprintf("%q is reported of %v", what, a), s.reports(what, other, a))
	}
}

// reports returns a function that looks for such a report.
func (s *site) reports(what string, other *netlab.Host, a netip.Addr) func() bool {
	return func() bool {
		for line := range strings.Lines(s.procs[0].Output()) {
			if strings.Contains(line, "floating address: conflict") &&
				strings.Contains(line, what+" "+a.String()) && strings.Contains(line, other.MAC.String()) {
				return true
			}
		}
		return false
	}
}

// Another machine that takes an address later and announces it is reported. It attracts no client
// for long.
func TestClaimedByAnother(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	s := newSite(t, 1, labnode.Cluster{Units: units(1)})
	s.owners("at first", nil)
	node, client, other := s.lab.Nodes[0], s.lab.Clients[0], s.lab.Clients[1]
	s.stubborn(client, node.MAC)
	<-time.After(2500 * time.Millisecond)
	s.must(other.Announce(s.addrs...))
	s.claimed("claims", other, s.addrs...)
	s.corrected(client, node.MAC, 2*time.Second)
}

// Another machine that takes an address and announces nothing is reported as well.
func TestClaimedInSilence(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	s := newSite(t, 1, labnode.Cluster{Units: units(1)})
	s.owners("at first", nil)
	other := s.lab.Clients[1]
	<-time.After(time.Second)
	began := time.Now()
	for _, a := range units(1)[0] {
		s.must(other.AddAddr(a))
	}
	s.claimed("claims", other, s.addrs...)
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("a silent machine was found out after %v", took)
	}
}

// Another machine that asks for the address first is refused and reported, unless it receives an
// announcement before it has asked.
func TestAskedForByAnother(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	s := newSite(t, 1, labnode.Cluster{Units: units(1)})
	s.owners("at first", nil)
	other := s.lab.Clients[1]
	ask := func(do func(netlink.Link, *netlink.Addr) error) {
		t.Helper()
		s.must(other.Do(func() error {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_dad", []byte("1"), 0); err != nil {
				return err
			}
			l, err := netlink.LinkByName(netlab.Interface)
			if err != nil {
				return err
			}
			a, err := netlink.ParseAddr(units(1)[0][1].String())
			if err != nil {
				return err
			}
			return do(l, a)
		}))
	}
	ask(netlink.AddrAdd)
	asked, reported := time.Now(), s.reports("wants to take", other, s.addrs[1])
	s.poll("the question for the address is reported", func() bool {
		if time.Since(asked) > 1500*time.Millisecond {
			ask(netlink.AddrDel)
			ask(netlink.AddrAdd)
			asked = time.Now()
		}
		return reported()
	})
}

// A node that cannot put an address in place does not take it from one that can, whatever its
// priority. It reports the kernel's reason, and gets the address back when the cause has gone.
func TestUnfitNode(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	s := newSite(t, 3, labnode.Cluster{Units: units(1)})
	s.owners("at first", s.home)
	node := s.lab.Nodes[0]
	set := func(value string) {
		t.Helper()
		s.must(node.Do(func() error {
			return os.WriteFile("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", []byte(value), 0)
		}))
	}
	set("1")
	s.owners("without IPv6 at node 0", s.without(0))
	before := len(s.watch.History(s.addrs[0]))
	<-time.After(8 * time.Second)
	if now := len(s.watch.History(s.addrs[0])); now != before {
		t.Errorf("the address has moved %d times while node 0 cannot take it", now-before)
	}
	said := s.procs[0].Output()
	if !strings.Contains(said, "the sysctl net.ipv6.conf.eth0.disable_ipv6 is 1") || strings.Contains(said, "lacks the capability") {
		t.Errorf("node 0 does not say what is wrong")
	}
	set("0")
	s.owners("with IPv6 again", s.home)
	s.single()
}

// When program and guard are killed together, the next owner answers a client on that very machine
// as soon as the kernel's whole seconds allow.
func TestLocalClient(t *testing.T) {
	machines := 3
	if !*long {
		machines = 1
		t.Log("one machine of three; -long kills each")
	}
	for _, noFence := range []bool{false, true} {
		t.Run(map[bool]string{false: "with a fence", true: "without a fence"}[noFence], func(t *testing.T) {
			if noFence && !*long {
				t.Skip("much like the case with a fence: it runs with -long")
			}
			s := newSite(t, 3, labnode.Cluster{Units: units(3), NoFence: noFence})
			s.owners("at first", s.home)
			<-time.After(time.Second)
			most := 1300 * time.Millisecond
			if noFence {
				most = 2500 * time.Millisecond
			}
			for i, node := range s.lab.Nodes[:machines] {
				var probes []*netlab.Probe
				for _, a := range s.addrs[2*i : 2*i+2] {
					p, err := node.ProbeUDP(netip.AddrPortFrom(a, netlab.Port), 0)
					s.must(err)
					probes = append(probes, p)
					s.poll("it answers itself", func() bool { return p.Latest().By == node.Name })
				}
				began := time.Now()
				_, err := node.Kill(syscall.SIGKILL, nil)
				s.must(err)
				for k, p := range probes {
					s.poll("another answers", func() bool { last := p.Latest(); return last.By != "" && last.By != node.Name })
					outage := p.Report(began, time.Now()).Outage
					t.Logf("%v was away for %v for a client on %s", s.addrs[2*i+k], outage, node.Name)
					if outage > most {
						t.Errorf("%v was away for %v for a client on its machine, want %v at the most", s.addrs[2*i+k], outage, most)
					}
					s.must(p.Close())
				}
				s.start(i)
				s.owners("with the node again", s.home)
				<-time.After(time.Second)
			}
			s.single()
		})
	}
}
