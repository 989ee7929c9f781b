package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/rights"
)

// remover removes addresses by netlink. Its socket is open from the beginning.
type remover struct {
	handle *netlink.Handle
}

// newRemover opens the socket and asks for something harmless. After that the code is in memory,
// and a missing permission is known before it matters.
func newRemover() (*remover, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	if err := handle.SetSocketTimeout(time.Second); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	r := &remover{handle}
	noInterface := 1<<31 - 1
	for _, ip := range []net.IP{net.IPv4(192, 0, 2, 1).To4(), net.ParseIP("2001:db8::1")} {
		err := r.del(noInterface, &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))})
		if errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("it may not change addresses: %s; capabilities must be ambient or of the file to reach it",
				rights.Why(err, rights.NetAdmin))
		}
	}
	return r, nil
}

func (r *remover) del(index int, ip *net.IPNet) error {
	return r.handle.AddrDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, &netlink.Addr{IPNet: ip})
}

// remove removes addresses. Addresses that are not there count as removed, and so do those of
// interfaces that are not there.
func (r *remover) remove(addrs []Addr) error {
	var errs []error
	for _, a := range addrs {
		ip := a.Prefix.Addr()
		err := r.del(a.Index, &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(a.Prefix.Bits(), ip.BitLen())})
		switch {
		case err == nil, errors.Is(err, unix.ENODEV), errors.Is(err, unix.EADDRNOTAVAIL):
		default:
			errs = append(errs, fmt.Errorf("%v: %w", ip, err))
		}
	}
	return errors.Join(errs...)
}

// arrivals observes addresses that are added to interfaces. A nil one observes nothing.
type arrivals struct {
	sock int
	buf  []byte
}

// newArrivals opens a socket that observes nothing yet.
func newArrivals() (*arrivals, error) {
	sock, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(sock, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(sock)
		return nil, err
	}
	return &arrivals{sock, make([]byte, 64<<10)}, nil
}

// fd returns the file to poll.
func (a *arrivals) fd() int32 {
	if a == nil {
		return -1
	}
	return int32(a.sock)
}

// listen starts or stops the observation. It is not on all the time, because each renewal of an
// address counts as an arrival too.
func (a *arrivals) listen(on bool) {
	if a == nil {
		return
	}
	option := unix.NETLINK_DROP_MEMBERSHIP
	if on {
		option = unix.NETLINK_ADD_MEMBERSHIP
	}
	for _, group := range []int{unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR} {
		if err := unix.SetsockoptInt(a.sock, unix.SOL_NETLINK, option, group); err != nil {
			say("addresses that appear after the deadline are not seen: %v", err)
		}
	}
}

// any reads what has been observed. It reports whether an address may have appeared on one of the
// interfaces.
func (a *arrivals) any(addrs []Addr) bool {
	found := false
	for {
		n, _, err := unix.Recvfrom(a.sock, a.buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS): // some were lost
			found = true
			continue
		case err != nil:
			return found
		}
		messages, err := syscall.ParseNetlinkMessage(a.buf[:n])
		if err != nil {
			found = true
			continue
		}
		for _, m := range messages {
			if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg {
				continue
			}
			index := int(binary.NativeEndian.Uint32(m.Data[4:])) // of struct ifaddrmsg
			found = found || slices.ContainsFunc(addrs, func(a Addr) bool { return a.Index == index })
		}
	}
}
