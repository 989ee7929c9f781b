package remover

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/rights"
)

// Remover removes addresses. Make it with Open.
type Remover struct {
	handle *netlink.Handle
}

// Open opens the socket and asks for something harmless. After that the code is in memory, and a
// missing permission is known before it matters.
func Open() (*Remover, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	if err := handle.SetSocketTimeout(time.Second); err != nil {
		handle.Close()
		return nil, fmt.Errorf("netlink: %w", err)
	}
	r := &Remover{handle}
	const noInterface = 1<<31 - 1
	for _, addr := range []string{"192.0.2.1", "2001:db8::1"} {
		ip := netip.MustParseAddr(addr)
		if err := r.del(noInterface, netip.PrefixFrom(ip, ip.BitLen())); errors.Is(err, unix.EPERM) {
			handle.Close()
			return nil, fmt.Errorf("it may not change addresses: %s; capabilities must be ambient or of the file to reach it",
				rights.Why(err, rights.NetAdmin))
		}
	}
	return r, nil
}

func (r *Remover) del(index int, prefix netip.Prefix) error {
	ip := prefix.Addr()
	return r.handle.AddrDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}},
		&netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(prefix.Bits(), ip.BitLen())}})
}

// Remove removes an address, with its prefix length, from the interface with that index. An address
// that is not there counts as removed, and so does one of an interface that is not there.
func (r *Remover) Remove(index int, prefix netip.Prefix) error {
	switch err := r.del(index, prefix); {
	case err == nil, errors.Is(err, unix.ENODEV), errors.Is(err, unix.EADDRNOTAVAIL):
		return nil
	default:
		return fmt.Errorf("%v: %w", prefix.Addr(), err)
	}
}

// Close closes the socket.
func (r *Remover) Close() { r.handle.Close() }
