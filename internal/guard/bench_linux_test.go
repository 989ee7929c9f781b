package guard

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkKill measures from SIGKILL of a program until the kernel reports that its address is
// gone.
func BenchmarkKill(b *testing.B) {
	for _, mib := range []int{0, 64, 512} {
		b.Run(fmt.Sprintf("heap=%dMiB", mib), func(b *testing.B) {
			n := newNetwork(b)
			var took []time.Duration
			for b.Loop() {
				h := newHost(b, true)
				h.do("eat %d", mib)
				h.do("extend 1h")
				h.do("watch %s", four)
				h.do("add")
				n.await(true, four)
				start := time.Now()
				h.kill(unix.SIGKILL)
				took = append(took, n.await(false, four).Sub(start))
				h.ended()
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "ms-max")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkExtend measures the cost of a renewal.
func BenchmarkExtend(b *testing.B) {
	g, err := Start(b.Context(), Addresses, nil)
	if err != nil {
		b.Skip(err)
	}
	defer g.Close()
	if err := g.Watch(b.Context(), []Addr{addr(4711, four)}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		g.Extend(time.Now().Add(time.Second))
	}
}
