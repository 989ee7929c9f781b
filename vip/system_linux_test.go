package vip

import (
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/flotilla-ha/flotilla/internal/guard"
)

// newsTest makes a process of the test binary run TestLostNews in a network namespace of its own.
const newsTest = "VIP_TEST_NEWS"

// A watch that does not read the kernel's news fast enough loses some of them. It learns that, and
// reads what comes afterwards.
func TestLostNews(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	if os.Getenv(newsTest) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestLostNews$", "-test.v")
		cmd.Env = append(os.Environ(), newsTest+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		out, err := cmd.CombinedOutput()
		if cmd.Process == nil {
			t.Skipf("a network namespace cannot be had here: %v", err)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	lo := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: 1}}
	change := func(f func(netlink.Link, *netlink.Addr) error, n int) {
		t.Helper()
		ip := net.IPv4(192, 0, byte(n>>8), byte(n))
		if err := f(lo, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(32, 32)}}); err != nil {
			t.Fatal(err)
		}
	}
	hold, first, gone, lost := make(chan struct{}), make(chan struct{}, 1), make(chan guard.Addr, 1000), make(chan struct{}, 1000)
	w, err := newWatch(func(n news) {
		select {
		case first <- struct{}{}:
		default:
		}
		<-hold
		select {
		case gone <- n.gone:
		default:
		}
	}, func() { lost <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	for n := range 4000 {
		change(netlink.AddrAdd, n)
		change(netlink.AddrDel, n)
	}
	<-first
	close(hold)
	wait := time.After(10 * time.Second)
	select {
	case <-lost:
	case <-wait:
		t.Fatal("the loss of news is not reported")
	}
	change(netlink.AddrAdd, 9999)
	change(netlink.AddrDel, 9999)
	for last := (guard.Addr{}); last.Prefix.Addr().String() != "192.0.39.15"; {
		select {
		case last = <-gone:
		case <-wait:
			t.Fatal("an address that was removed afterwards is not reported")
		}
	}
	if err := w.close(); err != nil {
		t.Error(err)
	}
}

// testSystem returns a system without guard and fence, and n entries in it.
func testSystem(n int) (s *system, entries []*entry) {
	u := newUnits()
	s = &system{units: u, lease: &sharedLease{units: u, table: &table{}, guard: &guardian{units: u}}}
	for range n {
		e := newEntry(nil)
		u.add(e)
		entries = append(entries, e)
	}
	return s, entries
}

// Addresses that are kept without a lease do not lengthen the lease of others, and their Run does
// not follow the renewals.
func TestKeptBesideLeased(t *testing.T) {
	s, p := testSystem(2)
	kept, leased := p[0], p[1]
	lease := time.Now().Add(time.Second)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.lease.extend(kept, lease, false))
	if !s.lease.drives(kept) {
		t.Fatal("the only one does not follow the renewals")
	}
	must(s.lease.extend(leased, lease, false))
	if s.lease.drives(leased) {
		t.Fatal("two follow the renewals")
	}
	changed := leased.changed
	must(s.lease.extend(kept, lease.Add(time.Hour), true))
	if !s.lease.until.Equal(lease) {
		t.Errorf("the kernel gets %v more than the lease", s.lease.until.Sub(lease))
	}
	select {
	case <-changed:
	default:
		t.Error("the one with a lease does not learn that it has to follow the renewals")
	}
	if !s.lease.drives(leased) {
		t.Error("one without a lease follows the renewals")
	}
	s.lease.end(leased)
	must(s.lease.extend(kept, lease.Add(time.Hour), true))
	if !s.lease.until.Equal(lease.Add(time.Hour)) {
		t.Error("the kept address is not extended although there is no lease any more")
	}
	must(s.lease.extend(leased, lease, false))
	if !s.lease.until.Equal(lease) {
		t.Errorf("a new lease does not count beside what is kept: %v longer", s.lease.until.Sub(lease))
	}
}

// A place that is still putting its addresses in place cannot follow the renewals, and is not
// chosen for that.
func TestNoDriverInBind(t *testing.T) {
	for range 20 { // the order of a map varies
		s, p := testSystem(3)
		lease := time.Now().Add(time.Second)
		for _, each := range p {
			if err := s.lease.extend(each, lease, false); err != nil {
				t.Fatal(err)
			}
		}
		s.lease.drives(p[0])
		s.lease.drives(p[1])
		s.lease.end(p[0])
		if s.lease.driver != p[1] {
			t.Fatal("one that is not in place yet is chosen")
		}
	}
}
