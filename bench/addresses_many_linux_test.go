package bench

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/netlab"
	"github.com/flotilla-ha/flotilla/internal/netlab/labnode"
)

// manyAddresses returns n units of one IPv4 address, at most 200. Those of the laboratory's nodes,
// clients and askers are below 20, above 100 and above 200.
func manyAddresses(n int) (units labnode.Units, addrs []netip.Addr) {
	for k := 20; len(addrs) < n; k++ {
		if k%100 < 10 && k > 100 {
			continue
		}
		a := netip.AddrFrom4([4]byte{10, 77, 0, byte(k)})
		units, addrs = append(units, []netip.Prefix{netip.PrefixFrom(a, 24)}), append(addrs, a)
	}
	return units, addrs
}

// BenchmarkGrowthAddresses has that many addresses, which are spread over three nodes. At the end
// it cuts off the machine of one, and measures until other nodes have the first and the last of
// its addresses.
func BenchmarkGrowthAddresses(b *testing.B) {
	if err := netlab.Available(); err != nil {
		b.Skip(err)
	}
	grow(b, "addresses", []int{1, 10, 50, 100, 200}, func(b *testing.B, size int) {
		s := newManySite(b, size)
		s.idle(b, *growthIdle, "idle-%core", "busiest-%core")
		last, between := s.cutOff(b)
		b.ReportMetric(ms(last-between), "first-ms")
		b.ReportMetric(ms(last), "last-ms")
		b.ReportMetric(0, "ns/op")
		s.close(b)
	})
}

// BenchmarkManyAddresses measures a hundred addresses that are spread over three nodes, and one
// address for comparison: what they cost at rest, and how long they are away when the machine of
// one node is cut off.
func BenchmarkManyAddresses(b *testing.B) {
	if err := netlab.Available(); err != nil {
		b.Skip(err)
	}
	for _, n := range []int{1, 100} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var away, moved []time.Duration
			for range tries(5) {
				s := newManySite(b, n)
				if len(away) == 0 {
					s.idle(b, 30*time.Second, "%-of-a-core/node", "%-of-a-core/busiest")
				}
				took, all := s.cutOff(b)
				away, moved = append(away, took), append(moved, all)
				s.close(b)
			}
			b.ReportMetric(ms(median(away)), "ms-median")
			b.ReportMetric(ms(away[len(away)-1]), "ms-max")
			b.ReportMetric(ms(median(moved)), "ms-between-first-and-last")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// manySite is a laboratory with many addresses.
type manySite struct {
	lab   *netlab.Lab
	watch *netlab.Watcher
	addrs []netip.Addr
	procs []*netlab.Process
}

func newManySite(b *testing.B, n int) *manySite {
	b.Helper()
	lab, err := netlab.New(3, 1)
	if err != nil {
		b.Fatal(err)
	}
	s := &manySite{lab: lab}
	var units labnode.Units
	units, s.addrs = manyAddresses(n)
	// The kernels are enough: the clients hardly ask.
	if s.watch, err = lab.Watch(time.Second, s.addrs...); err != nil {
		b.Fatal(err)
	}
	cluster := labnode.Cluster{Lab: lab, Dir: b.TempDir(), Units: units, Spread: true}
	for i := range 3 {
		p, err := cluster.Start(i)
		if err != nil {
			b.Fatal(err)
		}
		s.procs = append(s.procs, p)
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	err = s.watch.Await(ctx, func(owners []*netlab.Host) bool {
		for _, h := range lab.Nodes {
			others := func(o *netlab.Host) bool { return o != h }
			if held := len(slices.DeleteFunc(slices.Clone(owners), others)); n > 1 && held < n/3 {
				return false
			}
		}
		return true
	})
	if err != nil {
		b.Fatalf("%v\n%s", err, s.procs[0].Output())
	}
	time.Sleep(8 * time.Second) // the last announcements
	return s
}

func (s *manySite) close(b *testing.B) {
	b.Helper()
	for _, err := range []error{s.watch.Close(), s.lab.Close()} {
		if err != nil {
			b.Fatal(err)
		}
	}
}

// idle measures the processor time of each node, its guard included. It reports the mean and the
// busiest node in these units.
func (s *manySite) idle(b *testing.B, period time.Duration, mean, busiest string) {
	b.Helper()
	before := make([]time.Duration, len(s.lab.Nodes))
	for i, h := range s.lab.Nodes {
		before[i] = cpuOf(b, h)
	}
	time.Sleep(period)
	var most, sum float64
	for i, h := range s.lab.Nodes {
		share := 100 * float64(cpuOf(b, h)-before[i]) / float64(period)
		most, sum = max(most, share), sum+share
	}
	b.ReportMetric(sum/float64(len(s.lab.Nodes)), mean)
	b.ReportMetric(most, busiest)
}

// cpuOf returns the processor time of all processes of a host so far.
func cpuOf(b *testing.B, h *netlab.Host) (all time.Duration) {
	b.Helper()
	running, err := h.Processes()
	if err != nil {
		b.Fatal(err)
	}
	for _, r := range running {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", r.PID))
		if err != nil {
			b.Fatal(err)
		}
		for _, t := range tasks {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", r.PID, t.Name()))
			if err != nil {
				continue // the thread has ended
			}
			ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			all += time.Duration(ns)
		}
	}
	return all
}

// cutOff cuts off the machine of a node. It returns the time until another node has the last of its
// addresses, and the time between the first and the last of them.
func (s *manySite) cutOff(b *testing.B) (took, between time.Duration) {
	b.Helper()
	victim := s.watch.Owners(s.addrs[0])[0]
	began := time.Now()
	if err := victim.Cut(); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	if err := s.watch.Await(ctx, func(owners []*netlab.Host) bool { return !slices.Contains(owners, victim) }); err != nil {
		b.Fatal(err)
	}
	var first, last time.Time
	for _, a := range s.addrs {
		history := s.watch.History(a)
		at := history[len(history)-1].From
		if at.Before(began) {
			continue // another node had it
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	for _, p := range s.procs {
		p.Kill(syscall.SIGTERM)
	}
	return last.Sub(began), last.Sub(first)
}
