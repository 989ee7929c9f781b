package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/rights"
)

// nic is an interface on which addresses can be put.
type nic struct {
	index int
	name  string
}

// findNIC returns the interface with a name. If the name is empty it returns one that has another
// address in the subnet of addr. Of several it prefers the one with the index last, where the
// address is, then the first that works.
func findNIC(name string, addr netip.Prefix, last int) (nic, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nic{}, rights.Explain("list the interfaces", err)
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
		return false, rights.Explain("list the addresses of "+l.Attrs().Name, err)
	}
	for _, a := range addrs {
		p := prefixOf(a.IPNet)
		if p.Addr() != addr.Addr() && !p.IsSingleIP() && addr.Masked().Contains(p.Addr()) {
			return true, nil
		}
	}
	return false, nil
}

// prefixOf returns n as a netip.Prefix. The result is invalid if n is.
func prefixOf(n *net.IPNet) netip.Prefix {
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	if !ok {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(addr.Unmap(), ones)
}

// onLink names an interface to netlink.
func onLink(n nic) netlink.Link {
	return &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: n.index, Name: n.name}}
}

// remove removes an address from the interface. An address or interface that is not there is not an
// error.
func (n nic) remove(p netip.Prefix) error {
	ip := p.Addr()
	mask := net.CIDRMask(p.Bits(), ip.BitLen())
	err := netlink.AddrDel(onLink(n), &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: mask}})
	if gone(err) {
		return nil
	}
	return err
}

// gone reports whether an error says that there was nothing to remove.
func gone(err error) bool { return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) }

// accepts returns an error if the interface accepts no addresses of the kind of a.
func (n nic) accepts(a netip.Addr) error {
	if a.Is4() {
		return nil
	}
	setting, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + n.name + "/disable_ipv6")
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("the interface %s has no IPv6: this kernel has none, or the interface's MTU is below 1280",
			n.name)
	case err == nil && strings.TrimSpace(string(setting)) != "0":
		return fmt.Errorf("IPv6 is switched off on %s: the sysctl net.ipv6.conf.%s.disable_ipv6 is 1", n.name, n.name)
	}
	return nil
}

// refused returns the error of a kernel that refused to add or remove an address.
func (n nic) refused(what string, a netip.Addr, err error) error {
	if why := n.accepts(a); why != nil && errors.Is(err, syscall.EACCES) {
		return fmt.Errorf("cannot %s %v on %s: %w: %w", what, a, n.name, why, err)
	}
	return rights.Explain(fmt.Sprintf("%s %v on %s", what, a, n.name), err, rights.NetAdmin)
}

// checkRights finds out whether this process may do what is needed, by trying something harmless.
func checkRights() error {
	if len(rights.Missing(rights.NetAdmin, rights.NetRaw)) > 0 {
		return rights.Explain("have floating addresses", os.ErrPermission, rights.NetAdmin, rights.NetRaw)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return rights.Explain("open a packet socket", err, rights.NetRaw, rights.NetAdmin)
	}
	unix.Close(fd)
	nowhere := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 255), Mask: net.CIDRMask(32, 32)}}
	if err := netlink.AddrDel(onLink(nic{index: 1}), nowhere); errors.Is(err, os.ErrPermission) {
		return rights.Explain("change addresses", err, rights.NetAdmin)
	}
	return nil
}
