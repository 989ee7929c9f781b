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

// Every address has a lifetime in the kernel, which is renewed while the lease lasts. It is what takes the
// address away when program and guard are killed together, and until then clients on this machine are led to
// nobody: so it is as short as the kernel's whole seconds allow. With a fence it ends nothing for others. Without one it does, for
// whatever stands still, and the cluster waits for it: see Linger.
const (
	shortestLife = time.Second
	longestLife  = 30 * time.Second // of what is kept, or leased, for longer
	bareLife     = shortestLife     // without a fence
	bareLate     = 500 * time.Millisecond
)

// lifetime returns that of addresses whose lease lasts for so long, and after which time it is renewed.
func (s *system) lifetime(left time.Duration) (life, every time.Duration) {
	if s.fenced() == nil {
		return bareLife, 3 * bareLife / 10
	}
	life = min(max(left.Truncate(time.Second), shortestLife), longestLife)
	return life, 3 * life / 10
}

// renew renews the lifetimes of all addresses that are in place under the lease, when that is due: one caller does it for
// all, so the process wakes once.
func (s *system) renew() error {
	now := time.Now()
	s.mu.Lock()
	due, told := !now.Before(s.renewed), s.told
	s.mu.Unlock()
	if !due {
		return nil
	}
	life, every := s.lifetime(told.Sub(now))
	s.renewing.Lock()
	defer s.renewing.Unlock()
	var all []guard.Addr
	s.mu.Lock()
	for p := range s.places {
		if p.lives && !p.until.IsZero() && !p.kept {
			all = append(all, p.placed...)
		}
	}
	s.mu.Unlock()
	if !time.Now().Before(told) {
		return errLapsed // this process stood still
	}
	failed, err := s.rtnl.put(all, life)
	if err != nil {
		return nil // once more at the next renewal: should it last, the addresses go, and Mend says why
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !time.Now().Before(s.told) {
		return errLapsed // it stood still in between, and whoever took them away may have done so before
	}
	s.renewed, s.ends = now.Add(every), time.Now().Add(life+bareLate)
	for p := range s.places {
		if slices.ContainsFunc(p.placed, func(a guard.Addr) bool { return failed[a] != nil }) {
			p.missing = true // it finds out what is wrong as it puts it there once more
			p.wake()
		}
	}
	return nil
}

// rtnl puts addresses in place. Its socket is open all the time: when a program has no file left to open, its addresses are not to be lost.
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

// put has the kernel put addresses in place, or renew them. It returns what the kernel said of those that it refused.
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

// refusals reads what the kernel answers: it has done all by now, and answers only what it has not done. mu is held.
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

// addrMessage has the kernel put an address in place, or renew it: without a preferred lifetime, so that it is never chosen as a source.
func addrMessage(seq uint32, a guard.Addr, life time.Duration) []byte {
	req := &nl.NetlinkRequest{NlMsghdr: unix.NlMsghdr{Type: unix.RTM_NEWADDR, Flags: unix.NLM_F_REQUEST | unix.NLM_F_CREATE | unix.NLM_F_REPLACE, Seq: seq}}
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
	var times []byte // preferred and valid seconds, and two that are the kernel's to say
	for _, n := range []uint32{0, uint32(life / time.Second), 0, 0} {
		times = binary.NativeEndian.AppendUint32(times, n)
	}
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, ip))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, ip))
	req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, flags))
	req.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, times))
	return req.Serialize()
}

// dummies are addresses that nobody has and nobody sends to, RFC 7600's and one of RFC 6666's: by them is found out whether an interface takes any.
func dummies(index int, addrs []netip.Addr) (all []guard.Addr) {
	four, six := netip.AddrFrom4([4]byte{192, 0, 0, 8}), netip.MustParseAddr("100::f107:111a")
	for _, dummy := range []netip.Addr{four, six} {
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Is4() == dummy.Is4() }) {
			all = append(all, guard.Addr{Index: index, Prefix: netip.PrefixFrom(dummy, dummy.BitLen())})
		}
	}
	return all
}
