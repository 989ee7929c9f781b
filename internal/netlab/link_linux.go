package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/netlab/namespace"
	"github.com/flotilla-ha/flotilla/internal/netlab/poll"
)

// Interface is the name of the interface of every host.
const Interface = "eth0"

// addBridge makes a bridge. It has no spanning tree, so a port forwards as soon as it is up.
// Multicast goes to all ports.
func addBridge(ns *namespace.Namespace) (netlink.Link, error) {
	snooping := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := ns.Handle.LinkAdd(br); err != nil {
		return nil, fmt.Errorf("make a bridge: %w", err)
	}
	return br, ns.Handle.LinkSetUp(br)
}

// link is the namespace of one host and its connection to the bridge.
type link struct {
	name  string // of the host, and of its port
	addrs []netip.Prefix

	ns    *namespace.Namespace // of the host
	ports *namespace.Namespace // of the bridge
	eth   netlink.Link         // in ns
	port  netlink.Link         // in ports
}

// newLink makes a namespace with an interface, and connects the interface to the bridge.
func newLink(ports *namespace.Namespace, bridge netlink.Link, id identity) (*link, error) {
	ns, err := namespace.New()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", id.name, err)
	}
	l := &link{name: id.name, addrs: id.prefixes(), ns: ns, ports: ports}
	if err := l.connect(bridge, id.mac); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", id.name, err), ns.Close())
	}
	return l, nil
}

func (l *link) connect(bridge netlink.Link, mac net.HardwareAddr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = l.name
	attrs.MasterIndex = bridge.Attrs().Index
	attrs.Flags = net.FlagUp
	err := l.ports.Handle.LinkAdd(&netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         Interface,
		PeerHardwareAddr: mac,
		PeerNamespace:    netlink.NsFd(l.ns.NS),
	})
	if err != nil {
		return fmt.Errorf("make its link: %w", err)
	}
	if l.port, err = l.ports.Handle.LinkByName(l.name); err != nil {
		return err
	}
	if l.eth, err = l.ns.Handle.LinkByName(Interface); err != nil {
		return err
	}
	return l.setInterface(true)
}

// setInterface takes the interface of the host up or down. The addresses of the host come back with
// the interface.
func (l *link) setInterface(up bool) error {
	if !up {
		return l.ns.Handle.LinkSetDown(l.eth)
	}
	if err := l.ns.Handle.LinkSetUp(l.eth); err != nil {
		return err
	}
	var errs []error
	for _, a := range l.addrs {
		errs = append(errs, l.add(a))
	}
	return errors.Join(errs...)
}

// setPort takes the bridge port up or down.
func (l *link) setPort(up bool) error {
	if up {
		return l.ports.Handle.LinkSetUp(l.port)
	}
	return l.ports.Handle.LinkSetDown(l.port)
}

// await waits until frames pass the link. The ends are up at once, but the kernel attaches their
// queues a little later.
func (l *link) await() error {
	var err error
	up := func(ns *namespace.Namespace, end netlink.Link) bool {
		now, e := ns.Handle.LinkByIndex(end.Attrs().Index)
		err = errors.Join(err, e)
		return e == nil && now.Attrs().OperState == netlink.OperUp
	}
	if !poll.Until(5*time.Second, func() bool { return err != nil || up(l.ns, l.eth) && up(l.ports, l.port) }) {
		return fmt.Errorf("%s: its link does not come up", l.name)
	}
	return err
}

func (l *link) add(p netip.Prefix) error    { return l.ns.Handle.AddrReplace(l.eth, netlinkAddr(p)) }
func (l *link) remove(p netip.Prefix) error { return l.ns.Handle.AddrDel(l.eth, netlinkAddr(p)) }

func (l *link) close() error { return l.ns.Close() }

// openPacket opens a socket in the host for all frames of one protocol that arrive, whatever their
// destination.
func (l *link) openPacket(protocol uint16) (*packetSocket, error) {
	var s *packetSocket
	err := l.ns.Do(func() (err error) {
		s, err = newPacketSocket(l.name, protocol, l.eth.Attrs().Index)
		return err
	})
	return s, err
}

func netlinkAddr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}
