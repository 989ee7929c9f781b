package netlab

import (
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/netlab/poll"
)

// probes asks for each address by datagrams and by connections.
func probes(t *testing.T, c *Host, addrs []netip.Addr) (udp, tcp []*Probe) {
	t.Helper()
	for _, a := range addrs {
		to := netip.AddrPortFrom(a, Port)
		u, err := c.ProbeUDP(to, 0)
		must(t, err)
		udp = append(udp, u)
		c, err := c.ProbeTCP(to, 0)
		must(t, err)
		tcp = append(tcp, c)
	}
	t.Cleanup(func() {
		for _, p := range append(slices.Clone(udp), tcp...) {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return udp, tcp
}

// An address moves to another node, which announces it. The time between is the outage.
func TestProbeSeesMove(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits, and has hosts of its own
	l := open(t, 2, 1)
	addrs, prefixes := floating()
	for _, n := range l.Nodes {
		_, err := n.Respond()
		must(t, err)
	}
	must(t, l.Nodes[0].AddAddr(prefixes[0]), l.Nodes[0].AddAddr(prefixes[1]))
	w := watch(t, l, addrs)
	answers := func() bool { return len(w.Answerers(0, addrs[0])) > 0 && len(w.Answerers(0, addrs[1])) > 0 }
	if !poll.Until(5*time.Second, answers) {
		t.Fatal("node0 does not answer for its addresses")
	}
	udp, tcp := probes(t, l.Clients[0], addrs)
	began := time.Now()
	after(100 * time.Millisecond)
	must(t, l.Nodes[0].DelAddr(prefixes[0]), l.Nodes[0].DelAddr(prefixes[1]))
	gone := time.Now()
	after(400 * time.Millisecond)
	must(t, l.Nodes[1].AddAddr(prefixes[0]), l.Nodes[1].AddAddr(prefixes[1]), l.Nodes[1].Announce(addrs...))
	gap := time.Since(gone)
	after(time.Second + 200*time.Millisecond)
	for i := range addrs {
		u, c := udp[i].Report(began, time.Now()), tcp[i].Report(began, time.Now())
		about(t, "outage by UDP", u.Outage, gap)
		about(t, "outage by TCP", c.Outage, gap)
		if want := []string{"node0", "node1"}; !slices.Equal(u.By, want) || !slices.Equal(c.By, want) {
			t.Errorf("answered by %v and %v", u.By, c.By)
		}
		// The kernel repeats a lost SYN after a second.
		about(t, "slowest by TCP", c.Slowest, time.Second)
	}
}

// A frozen program answers nothing, and answers all questions afterwards. A killed program answers
// nothing, and its connections are refused.
func TestProbeSeesProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	l := open(t, 1, 1)
	n := l.Nodes[0]
	p, err := n.Respond()
	must(t, err)
	addrs := []netip.Addr{n.Addr4, n.Addr6}
	udp, tcp := probes(t, l.Clients[0], addrs)
	after(200 * time.Millisecond)

	began := time.Now()
	after(50 * time.Millisecond)
	froze := time.Now()
	must(t, n.Freeze())
	after(300 * time.Millisecond)
	must(t, n.Thaw())
	frozen := time.Since(froze)
	after(200 * time.Millisecond)
	ended := time.Now()
	for i := range addrs {
		for _, s := range []Service{udp[i].Report(began, ended), tcp[i].Report(began, ended)} {
			about(t, "outage of the frozen", s.Outage, frozen)
			about(t, "slowest of the frozen", s.Slowest, frozen)
			if s.Failed > 0 {
				t.Errorf("%d failed, and should have been answered late", s.Failed)
			}
		}
	}

	began = time.Now()
	must(t, p.Kill(syscall.SIGKILL))
	<-p.Done()
	after(200 * time.Millisecond)
	ended = time.Now()
	for i := range addrs {
		u, c := udp[i].Report(began, ended), tcp[i].Report(began, ended)
		about(t, "outage of the killed by UDP", u.Outage, ended.Sub(began))
		about(t, "outage of the killed by TCP", c.Outage, ended.Sub(began))
		if c.Failed < 5 {
			t.Errorf("%d of %d connections failed, though nobody listens", c.Failed, c.Sent)
		}
	}
}
