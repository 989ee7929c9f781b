package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addBridge makes the bridge: no spanning tree, so a port forwards as soon as it is up, and multicast goes everywhere.
func (s *site) addBridge() (netlink.Link, error) {
	snooping := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := s.handle.LinkAdd(br); err != nil {
		return nil, fmt.Errorf("the bridge: %w", err)
	}
	return br, s.handle.LinkSetUp(br)
}

// connect makes the interface of the host and its port of the bridge.
func (h *Host) connect(bridge netlink.Link) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = h.Name
	attrs.MasterIndex = bridge.Attrs().Index
	attrs.Flags = net.FlagUp
	ports := h.lab.bridge.handle
	if err := ports.LinkAdd(&netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         Interface,
		PeerHardwareAddr: h.MAC,
		PeerNamespace:    netlink.NsFd(h.site.ns),
	}); err != nil {
		return fmt.Errorf("its link: %w", err)
	}
	var err error
	if h.port, err = ports.LinkByName(h.Name); err != nil {
		return err
	}
	if h.eth, err = h.site.handle.LinkByName(Interface); err != nil {
		return err
	}
	if err := h.site.handle.LinkSetUp(h.eth); err != nil {
		return err
	}
	return h.address()
}

// address gives the host its own addresses.
func (h *Host) address() error {
	return errors.Join(h.AddAddr(netip.PrefixFrom(h.Addr4, 24)), h.AddAddr(netip.PrefixFrom(h.Addr6, 64)))
}

// AddAddr adds an address to the host, without duplicate address detection.
func (h *Host) AddAddr(p netip.Prefix) error {
	return h.site.handle.AddrReplace(h.eth, netlinkAddr(p))
}

// DelAddr removes an address from the host.
func (h *Host) DelAddr(p netip.Prefix) error {
	return h.site.handle.AddrDel(h.eth, netlinkAddr(p))
}

func netlinkAddr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// awaitUp is awaitLink unless something else keeps the link down.
func (h *Host) awaitUp() error {
	h.lab.mu.Lock()
	down := h.lab.net.down[h.index] || h.lab.net.cut[h.index]
	h.lab.mu.Unlock()
	if down {
		return nil
	}
	return h.awaitLink()
}

// awaitLink waits until frames pass the link: its ends are up at once, and the kernel attaches their queues a little later.
func (h *Host) awaitLink() error {
	var err error
	up := func(s *site, l netlink.Link) bool {
		now, e := s.handle.LinkByIndex(l.Attrs().Index)
		err = errors.Join(err, e)
		return e == nil && now.Attrs().OperState == netlink.OperUp
	}
	if !poll(5*time.Second, func() bool { return err != nil || up(h.site, h.eth) && up(h.lab.bridge, h.port) }) {
		return fmt.Errorf("%s: its link does not come up", h.Name)
	}
	return err
}

// LinkDown takes the host's own interface down. The kernel then removes its IPv6 addresses, not those of IPv4.
func (h *Host) LinkDown() error {
	if err := h.site.handle.LinkSetDown(h.eth); err != nil {
		return err
	}
	return h.lab.change(func(n *network) { n.down[h.index] = true })
}

// LinkUp takes the host's own interface up again, and gives the host its own addresses back.
func (h *Host) LinkUp() error {
	if err := h.site.handle.LinkSetUp(h.eth); err != nil {
		return err
	}
	if err := errors.Join(h.address(), h.lab.change(func(n *network) { n.down[h.index] = false })); err != nil {
		return err
	}
	return h.awaitUp()
}

// Cut takes down the port of the bridge that the host is connected to: its own interface stays up, and loses its carrier, as if the
// cable was pulled.
func (h *Host) Cut() error {
	if err := h.lab.bridge.handle.LinkSetDown(h.port); err != nil {
		return err
	}
	return h.lab.change(func(n *network) { n.cut[h.index] = true })
}

// Mend ends what Cut, CutSending and CutReceiving began.
func (h *Host) Mend() error {
	if err := h.lab.bridge.handle.LinkSetUp(h.port); err != nil {
		return err
	}
	if err := h.lab.change(func(n *network) { n.cut[h.index], n.mute[h.index], n.deaf[h.index] = false, false, false }); err != nil {
		return err
	}
	return h.awaitUp()
}
