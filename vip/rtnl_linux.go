package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/guard"
	"github.com/flotilla-ha/flotilla/internal/rights"
)

// rtnl puts addresses in place. Its socket stays open, so that a program that can open no more
// files does not lose its addresses.
type rtnl struct {
	mu sync.Mutex // held across the kernel's answer
	fd int
}

func openRtnl() (*rtnl, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, rights.Explain("change addresses", os.NewSyscallError("socket", err), rights.NetAdmin)
	}
	return &rtnl{fd: fd}, nil
}

func (r *rtnl) close() error { return unix.Close(r.fd) }

// put makes the kernel add addresses, or renew their lifetimes. It returns the kernel's errors for
// the addresses that it refused.
func (r *rtnl) put(addrs []guard.Addr, life time.Duration) (failed map[guard.Addr]error, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	failed = make(map[guard.Addr]error)
	for some := range slices.Chunk(addrs, 256) {
		var request []byte
		for i, a := range some {
			request = append(request, addrMessage(uint32(i+1), a, life)...)
		}
		if err := unix.Sendto(r.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return nil, rights.Explain("put addresses in place", os.NewSyscallError("sendto", err), rights.NetAdmin)
		}
		if err := r.refusals(some, failed); err != nil {
			return nil, fmt.Errorf("cannot put addresses in place: %w", err)
		}
	}
	return failed, nil
}

// refusals reads the kernel's answers. The kernel has done everything by now, and answers only for
// what it has not done. mu is held.
func (r *rtnl) refusals(addrs []guard.Addr, failed map[guard.Addr]error) error {
	buf := make([]byte, 16<<10)
	for {
		n, _, err := unix.Recvfrom(r.fd, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return os.NewSyscallError("recvfrom", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return err
		}
		for _, m := range messages {
			i := int(m.Header.Seq) - 1
			if m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 || i < 0 || i >= len(addrs) {
				continue
			}
			if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
				failed[addrs[i]] = syscall.Errno(errno)
			}
		}
	}
}

// addrMessage returns the request to add an address or to renew it. The address has no preferred
// lifetime, so it is never chosen as a source.
func addrMessage(seq uint32, a guard.Addr, life time.Duration) []byte {
	const replace = unix.NLM_F_REQUEST | unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	req := &nl.NetlinkRequest{NlMsghdr: unix.NlMsghdr{Type: unix.RTM_NEWADDR, Flags: replace, Seq: seq}}
	req.Len = unix.SizeofNlMsghdr
	family := uint8(unix.AF_INET6)
	if a.Prefix.Addr().Is4() {
		family = unix.AF_INET
	}
	msg := nl.NewIfAddrmsg(int(family))
	msg.Index, msg.Prefixlen = uint32(a.Index), uint8(a.Prefix.Bits())
	req.AddData(msg)
	ip := a.Prefix.Addr().AsSlice()
	flags := binary.NativeEndian.AppendUint32(nil, unix.IFA_F_NODAD|unix.IFA_F_NOPREFIXROUTE)
	var times []byte // preferred and valid seconds; the kernel fills in the other two
	for _, n := range []uint32{0, uint32(life / time.Second), 0, 0} {
		times = binary.NativeEndian.AppendUint32(times, n)
	}
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, ip))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, ip))
	req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, flags))
	req.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, times))
	return req.Serialize()
}

// dummies returns addresses that no machine has and none sends to: that of RFC 7600 and one of
// RFC 6666. They show whether an interface accepts addresses.
func dummies(index int, addrs []netip.Addr) (all []guard.Addr) {
	four, six := netip.AddrFrom4([4]byte{192, 0, 0, 8}), netip.MustParseAddr("100::f107:111a")
	for _, dummy := range []netip.Addr{four, six} {
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Is4() == dummy.Is4() }) {
			all = append(all, guard.Addr{Index: index, Prefix: netip.PrefixFrom(dummy, dummy.BitLen())})
		}
	}
	return all
}
