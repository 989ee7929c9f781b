package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/netlab/namespace"
)

// A process that has stood still past its lease puts no address in place, and has nothing to
// remove.
func TestPutAfterTheLease(t *testing.T) {
	s, entries := testSystem(1)
	p := placement{entry: entries[0], system: s}
	// errExpired joined with another error would mean that the address was put in place.
	if err := p.put(); err != errExpired {
		t.Errorf("an address is put in place without a lease: %v", err)
	}
}

// Only neighbours that the kernel is asking for are asked for, and only so many at a time.
func TestUnanswered(t *testing.T) {
	ip := func(i int) net.IP { return net.IPv4(192, 0, 2, byte(i)) }
	var all []netlink.Neigh
	for i, state := range []int{
		netlink.NUD_REACHABLE, netlink.NUD_STALE, netlink.NUD_DELAY, netlink.NUD_PROBE, netlink.NUD_FAILED,
		netlink.NUD_NOARP, netlink.NUD_PERMANENT, netlink.NUD_INCOMPLETE,
	} {
		all = append(all, netlink.Neigh{IP: ip(i), State: state})
	}
	if diff := cmp.Diff([]netip.Addr{netip.MustParseAddr("192.0.2.7")}, unanswered(all), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for i := range 2 * askMost {
		all = append(all, netlink.Neigh{IP: ip(i), State: netlink.NUD_INCOMPLETE})
	}
	if n := len(unanswered(all)); n != askMost {
		t.Errorf("%d are asked for at a time, want %d", n, askMost)
	}
}

// takeFarEnd moves the other end of vip0 of a program into a network namespace of the test, and
// gives it addresses.
func takeFarEnd(t *testing.T, pid int, prefixes ...string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	program, err := netns.GetFromPid(pid)
	must(err)
	defer program.Close()
	h, err := netlink.NewHandleAt(program, unix.NETLINK_ROUTE)
	must(err)
	defer h.Close()
	ns, err := namespace.New()
	must(err)
	t.Cleanup(func() { ns.Close() })
	end, err := h.LinkByName("vip1")
	must(err)
	must(h.LinkSetNsFd(end, int(ns.NS)))
	end, err = ns.Handle.LinkByName("vip1")
	must(err)
	for _, p := range prefixes {
		must(ns.Handle.AddrAdd(end, usable(p)))
	}
	must(ns.Handle.LinkSetUp(end))
}

// usable returns an address that can be used at once.
func usable(prefix string) *netlink.Addr {
	p := netip.MustParsePrefix(prefix)
	return &netlink.Addr{
		IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		Flags: unix.IFA_F_NODAD,
	}
}

// unwilling makes the kernel ask for neighbours, and keeps it from finding them. An old connection,
// from an address that is not here any more, goes on sending to one of them.
func unwilling(ctx context.Context) error {
	// The address of the link is not usable for so many seconds.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/dad_transmits", []byte("100"), 0); err != nil {
		return err
	}
	unit, err := vip0()
	if err != nil {
		return err
	}
	fmt.Println("ready")
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var l netlink.Link
	for taken := false; !taken; <-tick.C { // by takeFarEnd
		_, gone := netlink.LinkByName("vip1")
		if l, err = netlink.LinkByName("vip0"); err != nil {
			return err
		}
		taken = gone != nil && l.Attrs().OperState == netlink.OperUp && l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
	}
	err = errors.Join(netlink.AddrAdd(l, usable("192.0.2.2/24")), netlink.AddrAdd(l, usable("2001:db8::2/64")))
	neighbours := []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")}
	for _, a := range neighbours {
		err = errors.Join(err, netlink.NeighAdd(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: a.AsSlice(), State: netlink.NUD_INCOMPLETE}))
	}
	if err != nil {
		return err
	}
	old := net.Dialer{
		LocalAddr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[2001:db8::3]:9")),
		Control: func(_, _ string, c syscall.RawConn) error {
			var failed error
			err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1) })
			return errors.Join(err, failed)
		},
	}
	conn, err := old.DialContext(ctx, "udp6", "[2001:db8::9]:9")
	if err != nil {
		return err
	}
	go func() {
		for range time.Tick(time.Millisecond) {
			conn.Write([]byte("old")) // the kernel drops it, or says that the neighbour is not found
		}
	}()
	u := unit("192.0.2.1/24", true)
	u.Addrs = append(u.Addrs, netip.MustParsePrefix("2001:db8::1/64"))
	p, err := kernel{}.Attach(ctx, u)
	if err != nil {
		return err
	}
	if err := p.Bind(ctx, grant()); err != nil {
		return err
	}
	await := func(a netip.Addr, is func(netlink.Neigh) bool) bool {
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); <-tick.C {
			all, err := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_ALL)
			if err == nil && slices.ContainsFunc(all, func(n netlink.Neigh) bool { return n.IP.Equal(a.AsSlice()) && is(n) }) {
				return true
			}
		}
		return false
	}
	found := func(n netlink.Neigh) bool { return len(n.HardwareAddr) > 0 }
	for _, a := range neighbours {
		fmt.Println(a, "found:", await(a, found))
	}
	// The old connection is the first to look for the neighbour again.
	a := neighbours[1]
	if err := netlink.NeighDel(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: a.AsSlice()}); err != nil {
		return err
	}
	fmt.Println(a, "lost:", await(a, func(n netlink.Neigh) bool { return n.State == netlink.NUD_INCOMPLETE }))
	if err := p.Announce(); err != nil {
		return err
	}
	fmt.Println(a, "found:", await(a, found))
	select {}
}

// Neighbours that the kernel does not find are asked for when an address is in place, so that their
// connections are answered at once. This is repeated with the first announcements.
func TestNeighboursAskedAgain(t *testing.T) {
	_, rest, cmd := alone(t, unwilling)
	takeFarEnd(t, cmd.Process.Pid, "192.0.2.9/24", "2001:db8::9/64")
	for _, want := range []string{"192.0.2.9 found", "2001:db8::9 found", "2001:db8::9 lost", "2001:db8::9 found"} {
		if said, err := rest.ReadString('\n'); err != nil || said != want+": true\n" {
			t.Errorf("the program says %q, %v; want %q", said, err, want+": true")
		}
	}
}
