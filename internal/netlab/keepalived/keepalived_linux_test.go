package keepalived

import (
	"context"
	"flag"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/netlab"
)

// long adds the slow default of keepalived.
var long = flag.Bool("long", false, "go through all cases")

// Both configurations spread the addresses, move them when the program of their node has died, and
// bring them back.
func TestKeepalived(t *testing.T) {
	for _, test := range []struct {
		name     string
		interval time.Duration
	}{{"fastest", 10 * time.Millisecond}, {"fast", 100 * time.Millisecond}, {"default", 0}} {
		t.Run(test.name, func(t *testing.T) {
			if test.interval == 0 && !*long {
				t.Skip("it takes ten seconds: it runs with -long")
			}
			if testing.Short() {
				t.Skip("a slow test: it runs without -short")
			}
			t.Parallel() // it waits, and has hosts of its own
			s := start(t, test.interval)
			s.await(0, 1)
			s.check(s.setup.SetAlive(0, false))
			s.await(1, 1)
			s.check(s.setup.SetAlive(0, true))
			s.await(0, 1)
			s.check(s.daemons[1].Kill(syscall.SIGTERM))
			s.await(0, 0)
		})
	}
}

// running is keepalived on two nodes, with two addresses for each.
type running struct {
	t       *testing.T
	setup   Setup
	watch   *netlab.Watcher
	daemons []*netlab.Process
}

func start(t *testing.T, interval time.Duration) *running {
	t.Helper()
	if err := netlab.Available(); err != nil {
		t.Skip(err)
	}
	if err := Available(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir() // before the lab: it is removed when all processes have ended
	lab, err := netlab.New(2, 1)
	if err != nil {
		t.Fatal(err)
	}
	s := &running{t: t, setup: Setup{Lab: lab, Dir: dir, Interval: interval, Addrs: [][]netip.Addr{
		{netip.MustParseAddr("10.77.0.51"), netip.MustParseAddr("fd77::51")},
		{netip.MustParseAddr("10.77.0.52"), netip.MustParseAddr("fd77::52")},
	}}}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	s.watch, err = lab.Watch(0, slices.Concat(s.setup.Addrs...)...)
	s.check(err)
	t.Cleanup(func() {
		if err := s.watch.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range lab.Nodes {
		p, err := s.setup.Start(i)
		s.check(err)
		s.daemons = append(s.daemons, p)
	}
	return s
}

func (s *running) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// await waits until these nodes have the addresses of node 0, and of node 1.
func (s *running) await(owners ...int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	nodes := s.setup.Lab.Nodes
	err := s.watch.Await(ctx, func(got []*netlab.Host) bool {
		for i, h := range got {
			if h != nodes[owners[i/2]] {
				return false
			}
		}
		return true
	})
	if err != nil {
		s.t.Fatalf("%v\n%s\n%s", err, s.daemons[0].Output(), s.daemons[1].Output())
	}
}
