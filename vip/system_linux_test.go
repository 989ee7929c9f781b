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

// deafTest has a process of the test's binary run TestDeaf in a network namespace of its own.
const deafTest = "VIP_TEST_DEAF"

// Whoever does not take the kernel's news fast enough loses some of them, is told so, and hears what comes afterwards.
func TestDeaf(t *testing.T) {
	if os.Getenv(deafTest) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestDeaf$", "-test.v")
		cmd.Env = append(os.Environ(), deafTest+"=1")
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
	hold, first, gone, deaf := make(chan struct{}), make(chan struct{}, 1), make(chan guard.Addr, 1000), make(chan struct{}, 1000)
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
	}, func() { deaf <- struct{}{} })
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
	case <-deaf:
	case <-wait:
		t.Fatal("nobody says that news were lost")
	}
	change(netlink.AddrAdd, 9999)
	change(netlink.AddrDel, 9999)
	for last := (guard.Addr{}); last.Prefix.Addr().String() != "192.0.39.15"; {
		select {
		case last = <-gone:
		case <-wait:
			t.Fatal("an address that was removed afterwards went unheard")
		}
	}
	if err := w.close(); err != nil {
		t.Error(err)
	}
}

// testSystem is a system without guard and fence, and n places in it.
func testSystem(n int) (s *system, places []*kernelPlace) {
	s = &system{places: make(map[*kernelPlace]struct{})}
	for range n {
		p := &kernelPlace{changed: make(chan struct{})}
		s.places[p] = struct{}{}
		places = append(places, p)
	}
	return s, places
}

// What is kept without a lease does not lengthen the time for which the kernel lets pass what needs one, nor does it tell of renewals.
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
	must(s.extend(kept, lease, false))
	if !s.drives(kept) {
		t.Fatal("the only one does not tell of renewals")
	}
	must(s.extend(leased, lease, false))
	if s.drives(leased) {
		t.Fatal("two tell of renewals")
	}
	changed := leased.changed
	must(s.extend(kept, lease.Add(time.Hour), true))
	if !s.told.Equal(lease) {
		t.Errorf("the kernel is told of %v beyond the lease", s.told.Sub(lease))
	}
	select {
	case <-changed:
	default:
		t.Error("the one with a lease does not hear that it has to tell of renewals")
	}
	if !s.drives(leased) {
		t.Error("one without a lease tells of renewals")
	}
	s.lapse(leased)
	must(s.extend(kept, lease.Add(time.Hour), true))
	if !s.told.Equal(lease.Add(time.Hour)) {
		t.Error("what is kept is not, now that nothing is leased")
	}
	must(s.extend(leased, lease, false))
	if !s.told.Equal(lease) {
		t.Errorf("a new lease does not count beside what is kept: %v longer", s.told.Sub(lease))
	}
}

// While a place still puts its addresses there it cannot tell of renewals, and is not taken for who does.
func TestNoDriverInBind(t *testing.T) {
	for range 20 { // a map's order
		s, p := testSystem(3)
		lease := time.Now().Add(time.Second)
		for _, each := range p {
			if err := s.extend(each, lease, false); err != nil {
				t.Fatal(err)
			}
		}
		s.drives(p[0])
		s.drives(p[1])
		s.lapse(p[0])
		if s.driver != p[1] {
			t.Fatal("the one that is about to be there is to tell of renewals")
		}
	}
}
