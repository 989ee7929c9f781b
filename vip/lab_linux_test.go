package vip_test

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/netlab"
	"github.com/flotilla-ha/flotilla/internal/netlab/labnode"
	"github.com/flotilla-ha/flotilla/internal/parallel"
)

// noRights makes the test binary a program without rights.
const noRights = "VIP_TEST_NO_RIGHTS"

func TestMain(m *testing.M) {
	netlab.Main()
	labnode.Main()
	if os.Getenv(noRights) != "" {
		fmt.Fprintln(os.Stderr, withoutRights())
		os.Exit(1)
	}
	flag.Parse()
	parallel.Tests(16)
	os.Exit(m.Run())
}

// site is a laboratory whose nodes run programs with floating addresses.
type site struct {
	*testing.T
	lab   *netlab.Lab
	fleet *labnode.Cluster
	addrs []netip.Addr
	procs []*netlab.Process
	// former is what the programs before those of procs have printed.
	former []string
	watch  *netlab.Watcher
	began  time.Time
}

// long makes tests go through more cases.
var long = flag.Bool("long", false, "go through all cases")

// units are n groups of an IPv4 and an IPv6 address.
func units(n int) (all labnode.Units) {
	for k := range n {
		all = append(all, []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.77.0.%d/24", 51+k)), netip.MustParsePrefix(fmt.Sprintf("fd77::%d/64", 51+k))})
	}
	return all
}

// newSite builds a laboratory and starts its programs.
func newSite(t *testing.T, nodes int, fleet labnode.Cluster) *site {
	t.Helper()
	s := newIdleSite(t, nodes, fleet)
	for i := range nodes {
		s.start(i)
	}
	return s
}

// newIdleSite builds a laboratory in which no program runs yet.
func newIdleSite(t *testing.T, nodes int, fleet labnode.Cluster) *site {
	t.Helper()
	if err := netlab.Available(); err != nil {
		t.Skip(err)
	}
	if testing.Short() {
		t.Skip("real processes in real time: it runs without -short")
	}
	dir := t.TempDir() // first: it is removed when all processes have ended
	lab, err := netlab.New(nodes, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	fleet.Lab, fleet.Dir = lab, dir
	s := &site{T: t, lab: lab, fleet: &fleet, procs: make([]*netlab.Process, nodes), former: make([]string, nodes)}
	for _, u := range fleet.Units {
		for _, a := range u {
			s.addrs = append(s.addrs, a.Addr())
		}
	}
	if s.watch, err = lab.Watch(0, s.addrs...); err != nil {
		t.Fatal(err)
	}
	s.began = time.Now()
	t.Cleanup(func() {
		if t.Failed() {
			for i, p := range s.procs {
				if p != nil {
					t.Logf("node %d:\n%s%s", i, s.former[i], p.Output())
				}
			}
			for _, a := range s.addrs {
				t.Logf("%v: %v", a, s.watch.History(a))
			}
		}
	})
	return s
}

func (s *site) start(i int) {
	s.Helper()
	if s.procs[i] != nil {
		<-s.procs[i].Done() // its addresses may have moved before the kernel has ended it
		s.former[i] += s.procs[i].Output()
	}
	p, err := s.fleet.Start(i)
	if err != nil {
		s.Fatal(err)
	}
	s.procs[i] = p
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// owners waits until every address has one owner in the kernels and answers on the wire, and accept
// returns true for the owners. A nil accept accepts all.
func (s *site) owners(what string, accept func(owners []*netlab.Host) bool) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	if err := s.watch.Await(ctx, accept); err != nil {
		s.Fatalf("%s: %v", what, err)
	}
}

// home accepts each unit at its own node.
func (s *site) home(owners []*netlab.Host) bool {
	for i, o := range owners {
		if o != s.lab.Nodes[i/2] {
			return false
		}
	}
	return true
}

// without accepts owners other than these nodes.
func (s *site) without(gone ...int) func([]*netlab.Host) bool {
	return func(owners []*netlab.Host) bool {
		return !slices.ContainsFunc(owners, func(o *netlab.Host) bool {
			return slices.ContainsFunc(gone, func(i int) bool { return o == s.lab.Nodes[i] })
		})
	}
}

// single fails the test if two nodes have answered for an address on the wire, or if a node took
// another node, or itself, for a machine outside the cluster.
func (s *site) single() {
	s.Helper()
	s.singleUntil(time.Now())
}

// singleUntil is single for what was answered until then.
func (s *site) singleUntil(until time.Time) {
	s.Helper()
	for i, p := range s.procs {
		if strings.Contains(p.Output(), "floating address: conflict") {
			s.Errorf("node %d sees a conflict where there is none", i)
		}
	}
	s.must(s.watch.Close())
	for _, o := range s.watch.Report(s.began, until) {
		if o.TwoOnWire.Longest > 0 {
			s.Errorf("two nodes answered for %v, for %v", o.Addr, o.TwoOnWire.Longest)
		}
	}
}

// event is something that happens to a node.
type event struct {
	name   string
	inject func(s *site, i int)
	undo   func(s *site, i int)
	stays  bool // the address stays in the victim's kernel while the event lasts
	rare   bool // goes with -long
}

func events() []event {
	killed := func(s *site, i int) { s.must(s.procs[i].Kill(syscall.SIGKILL)) }
	heal := func(s *site, i int) { s.must(s.lab.Heal()) }
	return []event{
		{"program killed", killed, (*site).start, false, false},
		{"program and guard killed", func(s *site, i int) {
			_, err := s.lab.Nodes[i].Kill(syscall.SIGKILL, nil)
			s.must(err)
		}, (*site).start, true, false},
		{"terminated", func(s *site, i int) {
			s.must(s.procs[i].Kill(syscall.SIGTERM))
			s.must(s.procs[i].Wait())
		}, (*site).start, false, false},
		{"crash", func(s *site, i int) { s.must(s.procs[i].Kill(syscall.SIGQUIT)) }, (*site).start, false, true},
		{"program stopped", func(s *site, i int) { s.must(s.procs[i].Kill(syscall.SIGSTOP)) },
			func(s *site, i int) { s.must(s.procs[i].Kill(syscall.SIGCONT)) }, false, true},
		{"frozen", func(s *site, i int) { s.must(s.lab.Nodes[i].Freeze()) }, func(s *site, i int) { s.must(s.lab.Nodes[i].Thaw()) }, true, false},
		{"link down", func(s *site, i int) { s.must(s.lab.Nodes[i].LinkDown()) }, func(s *site, i int) { s.must(s.lab.Nodes[i].LinkUp()) }, false, true},
		{"cut at the bridge", func(s *site, i int) { s.must(s.lab.Nodes[i].Cut()) }, func(s *site, i int) { s.must(s.lab.Nodes[i].Mend()) }, false, true},
		{"partition", func(s *site, i int) { s.must(s.lab.Partition([]*netlab.Host{s.lab.Nodes[i], s.lab.Clients[1]})) }, heal, false, false},
		{"cannot send", func(s *site, i int) { s.must(s.lab.Nodes[i].CutSending()) }, heal, false, true},
		{"cannot receive", func(s *site, i int) { s.must(s.lab.Nodes[i].CutReceiving()) }, heal, false, false},
	}
}

// Whatever happens to a node, its addresses move to other nodes and come back afterwards. No two
// nodes ever answer for one.
func TestEvents(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	for _, e := range events() {
		t.Run(e.name, func(t *testing.T) {
			if e.rare && !*long {
				t.Skip("much like another event: it runs with -long")
			}
			happens(t, e, labnode.Cluster{})
		})
	}
}

// The same without a fence, where the kernel's lifetimes end the addresses of a node that stands
// still, and without a guard, where the fence does.
func TestEventsWithLess(t *testing.T) {
	if !*long {
		t.Skip("the events of TestEvents, once more: it runs with -long")
	}
	for _, test := range []struct {
		name   string
		fleet  labnode.Cluster
		events []string
		stays  bool // nothing removes the address from the kernel
	}{
		{"without a fence", labnode.Cluster{NoFence: true}, []string{"program killed", "program and guard killed", "terminated", "frozen"}, false},
		{"without a guard", labnode.Cluster{NoGuard: true}, []string{"program killed"}, true},
		{"without both", labnode.Cluster{NoFence: true, NoGuard: true}, []string{"program killed", "partition"}, false},
	} {
		for _, e := range events() {
			if slices.Contains(test.events, e.name) {
				e.stays = e.stays || test.stays
				t.Run(test.name+", "+e.name, func(t *testing.T) { happens(t, e, test.fleet) })
			}
		}
	}
}

// happens makes an event happen to the leader and, with -long, to another node.
func happens(t *testing.T, e event, fleet labnode.Cluster) {
	fleet.Units = units(3)
	s := newSite(t, 3, fleet)
	s.owners("at first", s.home)
	leader := s.fleet.Leader(0)
	nodes := []int{(leader + 1) % 3, leader}
	if !*long {
		nodes = nodes[1:]
		t.Log("at the leader only; -long has it happen at another node too")
	}
	for _, i := range nodes {
		e.inject(s, i)
		if e.stays {
			s.answered(i)
		} else {
			s.owners(fmt.Sprintf("after the event at node %d", i), s.without(i))
		}
		e.undo(s, i)
		s.owners(fmt.Sprintf("after node %d is well again", i), s.home)
	}
	if fenced := !strings.Contains(s.procs[0].Output(), "no fence"); fenced == fleet.NoFence {
		t.Errorf("a fence is there: %v", fenced)
	}
	s.single()
}

// answered waits until other nodes answer for the addresses of node i, whatever is in its kernel.
func (s *site) answered(i int) {
	s.Helper()
	p, err := s.lab.Clients[0].ProbeUDP(netip.AddrPortFrom(s.addrs[2*i], netlab.Port), 0)
	s.must(err)
	defer func() { s.must(p.Close()) }()
	s.poll(fmt.Sprintf("another node than %d answers", i), func() bool {
		last := p.Latest()
		return !last.Answered.IsZero() && last.By != s.lab.Nodes[i].Name
	})
}

// poll waits until ok returns true.
func (s *site) poll(what string, ok func() bool) {
	s.Helper()
	end := time.NewTimer(time.Minute)
	defer end.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			s.Fatalf("not within a minute: %s", what)
		}
	}
}

// Clients connect every few milliseconds during moves by hand. No connection is refused or
// reset, and none waits for its second SYN.
func TestMovesUnderLoad(t *testing.T) {
	s := newSite(t, 3, labnode.Cluster{Units: units(1)})
	s.owners("at first", nil)
	var probes []*netlab.Probe
	for _, a := range s.addrs {
		p, err := s.lab.Clients[0].ProbeTCP(netip.AddrPortFrom(a, netlab.Port), 0)
		s.must(err)
		probes = append(probes, p)
	}
	moves, want := 0, 50
	if !*long {
		want = 20
		t.Logf("%d moves; more with -long", want)
	}
	for ; moves < want; moves++ {
		owner := s.watch.Owners(s.addrs[0])
		if len(owner) != 1 {
			s.Fatalf("%d owners", len(owner))
		}
		i := slices.Index(s.lab.Nodes, owner[0])
		s.must(s.procs[i].Kill(syscall.SIGUSR1))
		s.owners("after a move", s.without(i))
	}
	ended := time.Now()
	for i, p := range probes {
		s.must(p.Close())
		r := p.Report(s.began, ended)
		t.Logf("%v: %d connections in %d moves, %d failed, the slowest took %v, longest outage %v", s.addrs[i], r.Sent, moves, r.Failed, r.Slowest, r.Outage)
		if r.Failed > 0 {
			t.Errorf("%v: %d connections failed", s.addrs[i], r.Failed)
		}
	}
	s.single()
}

// Without a majority the last owner lets go of its addresses, or keeps them, as configured. It has
// them when the majority is back.
func TestLostQuorum(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	for _, keep := range []bool{false, true} {
		t.Run(map[bool]string{false: "release", true: "keep"}[keep], func(t *testing.T) {
			s := newSite(t, 3, labnode.Cluster{Units: units(3), Keep: keep})
			s.owners("at first", s.home)
			for _, i := range []int{1, 2} {
				s.must(s.procs[i].Kill(syscall.SIGKILL))
			}
			s.poll("node 0 says what it does with its address", func() bool {
				said := s.procs[0].Output()
				return strings.Contains(said, map[bool]string{false: "floating address: lost", true: "floating address: kept"}[keep])
			})
			// The guard may have removed it at the end of the lease, before the program said that it stays.
			s.poll("the address is as it should be without a majority", func() bool { return len(s.watch.Owners(s.addrs[0])) == 1 == keep })
			if keep { // it stays even if somebody removes it
				removed := time.Now()
				s.poll("it can be removed", func() bool { return s.lab.Nodes[0].DelAddr(netip.PrefixFrom(s.addrs[0], 32)) == nil })
				s.poll("it is back", func() bool {
					all := s.watch.History(s.addrs[0])
					return all[len(all)-1].From.After(removed) && len(s.watch.Owners(s.addrs[0])) == 1
				})
			}
			back := time.Now()
			for _, i := range []int{1, 2} {
				s.start(i)
			}
			s.owners("with a majority again", s.home)
			if keep { // afterwards two may answer, until the one without the role hears of that
				s.singleUntil(back)
			} else {
				s.single()
			}
		})
	}
}

// Two of five nodes die, one after the other.
func TestTwoOfFive(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	s := newSite(t, 5, labnode.Cluster{Units: units(5)})
	s.owners("at first", s.home)
	leader := s.fleet.Leader(0)
	other := (leader + 1) % 5
	s.must(s.procs[leader].Kill(syscall.SIGKILL))
	s.must(s.procs[other].Kill(syscall.SIGKILL))
	s.owners("with two dead", s.without(leader, other))
	s.start(leader)
	s.start(other)
	s.owners("all there again", s.home)
	s.single()
}

// After a node has stood still, its guard does not remove what the node has been granted since:
// there is nothing to mend.
func TestThaw(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	s := newSite(t, 3, labnode.Cluster{Units: units(3)})
	s.owners("at first", s.home)
	for i := range s.procs {
		s.must(s.lab.Nodes[i].Freeze())
		s.answered(i)
		s.must(s.lab.Nodes[i].Thaw())
		s.owners(fmt.Sprintf("after node %d is well again", i), s.home)
	}
	<-time.After(1500 * time.Millisecond) // a removal is noticed within a second
	for i, p := range s.procs {
		if strings.Contains(p.Output(), "floating address: mended") {
			t.Errorf("node %d had to mend its addresses", i)
		}
	}
	s.single()
}
