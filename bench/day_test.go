//go:build unix

package bench

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

var (
	day       = flag.Duration("day", 24*time.Hour, "simulated time of BenchmarkDay")
	dayEvery  = flag.Duration("day-every", time.Hour, "simulated time between two samples of BenchmarkDay")
	dayTiming = flag.String("day-timing", "lan", "timing of the nodes of BenchmarkDay: lan, fast, wan or turbo")
)

// sample is what a cluster has at one moment of BenchmarkDay.
type sample struct {
	at        time.Duration // simulated
	dir       int64         // bytes, of the largest directory since the last sample
	rss, heap int64         // bytes, of the process, which has three nodes
	writes    int           // so far
}

// BenchmarkDay runs three nodes for a simulated day, with files. A node stores a value of 4 KiB
// each second, at one of 1,000 keys. Another renews certificates of 60 names, each once an hour,
// with the lock and the records of certmagic; no authority takes part. The leases of the nodes and
// their renewals are as always. Each hour the benchmark reports the size of the largest directory
// within that hour, looked at every simulated minute, and the memory of the process. It is virtual
// time: processors and disks take none.
func BenchmarkDay(b *testing.B) {
	var all []sample
	inBubble(b, func(t *testing.T) { all = passDay(t) })
	for _, s := range all {
		b.Run(fmt.Sprintf("hours=%v", s.at.Hours()), func(b *testing.B) {
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(mib(s.dir), "dir-MiB")
			b.ReportMetric(mib(s.rss), "rss-MiB")
			b.ReportMetric(mib(s.heap), "heap-MiB")
			b.ReportMetric(float64(s.writes), "writes")
		})
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// passDay lets a day pass, and returns the samples. It runs in a bubble.
func passDay(t *testing.T) (all []sample) {
	root := disktest.MemDir(t)
	timing := map[string]flotilla.Timing{}
	for _, v := range []flotilla.Timing{flotilla.LAN, flotilla.Fast, flotilla.WAN, flotilla.Turbo} {
		timing[v.String()] = v
	}
	c := clustertest.New(t, 3, func(i int, c *flotilla.Config) {
		c.Dir = filepath.Join(root, fmt.Sprint(i))
		c.Timing = timing[*dayTiming]
		c.Logger = slog.New(slog.DiscardHandler)
	})
	c.Settle()
	writer, certs := c.Nodes[0].Storage(), c.Nodes[1].Storage()
	began, writes, largest := time.Now(), 0, int64(0)
	value := make([]byte, valueSize)
	for second := 0; ; second++ {
		time.Sleep(time.Until(began.Add(time.Duration(second) * time.Second)))
		passed := time.Duration(second) * time.Second
		if passed%time.Minute == 0 {
			largest = max(largest, largestDir(t, c))
		}
		if passed%*dayEvery == 0 {
			all = append(all, takeSample(passed, largest, writes))
			if largest = 0; passed >= *day {
				return all
			}
		}
		if err := writer.Store(t.Context(), fmt.Sprintf("bench/%d", second%1000), value); err != nil {
			t.Fatal(err)
		}
		writes++
		if passed%time.Minute == 0 {
			if err := renew(t, certs, fmt.Sprintf("n%d.example.com", second/60%60)); err != nil {
				t.Fatal(err)
			}
			writes += 5
		}
	}
}

// renew does with the storage what certmagic does when it renews a certificate.
func renew(t *testing.T, s *flotilla.Storage, name string) error {
	ctx, lock := t.Context(), "issue_cert_"+name
	if err := s.Lock(ctx, lock); err != nil {
		return err
	}
	for suffix, size := range map[string]int{".key": 227, ".crt": 3 << 10, ".json": 300} {
		path := fmt.Sprintf("certificates/acme-v02.api.letsencrypt.org-directory/%s/%s%s", name, name, suffix)
		if err := s.Store(ctx, path, make([]byte, size)); err != nil {
			return err
		}
	}
	return s.Unlock(ctx, lock)
}

// largestDir returns the size of the largest directory of a node.
func largestDir(t *testing.T, c *clustertest.Cluster) (largest int64) {
	for i := range c.Nodes {
		n := int64(0)
		err := filepath.WalkDir(c.Config(i).Dir, func(_ string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // removed meanwhile
			}
			if err != nil || e.IsDir() {
				return err
			}
			info, err := e.Info()
			if err == nil {
				n += info.Size()
			} else if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, n)
	}
	return largest
}

func takeSample(at time.Duration, dir int64, writes int) sample {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return sample{at: at, dir: dir, rss: residentBytes(), heap: int64(m.HeapInuse), writes: writes}
}

// residentBytes returns the memory of this process that is in RAM, 0 where the system does not say.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0
	}
	return resident * int64(os.Getpagesize())
}
