//go:build unix

package flotilla

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// followers returns the nodes that do not lead.
func followers(b *testing.B, nodes []*Node) []*Node {
	b.Helper()
	for i, n := range nodes {
		if n.replica.Leading.Load() != nil {
			return append(slices.Clone(nodes[:i]), nodes[i+1:]...)
		}
	}
	b.Fatal("nobody leads")
	return nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// Lock and Unlock of a lock that nobody else wants, on a follower; in turns with a Store there, for
// comparison.
func BenchmarkLockUnlock(b *testing.B) {
	s := followers(b, benchCluster(b, 3, nil))[0].Storage()
	var locks, stores []time.Duration
	value := make([]byte, 64)
	for b.Loop() {
		start := time.Now()
		if err := s.Lock(b.Context(), "lock"); err != nil {
			b.Fatal(err)
		}
		if err := s.Unlock(b.Context(), "lock"); err != nil {
			b.Fatal(err)
		}
		locks = append(locks, time.Since(start))
		start = time.Now()
		if err := s.Store(b.Context(), "key", value); err != nil {
			b.Fatal(err)
		}
		stores = append(stores, time.Since(start))
	}
	lock, store := median(locks), median(stores)
	b.ReportMetric(float64(lock.Microseconds()), "µs/lock+unlock")
	b.ReportMetric(float64(store.Microseconds()), "µs/store")
	b.ReportMetric(float64(lock)/float64(store), "stores/lock+unlock")
}

// From Unlock on one follower until Lock returns on the other.
func BenchmarkHandOver(b *testing.B) {
	two := followers(b, benchCluster(b, 3, nil))
	holder, waiter := two[0].Storage(), two[1].Storage()
	if err := holder.Lock(b.Context(), "lock"); err != nil {
		b.Fatal(err)
	}
	var took, stores []time.Duration
	for b.Loop() {
		got := make(chan time.Time, 1)
		go func() {
			if err := waiter.Lock(b.Context(), "lock"); err != nil {
				b.Error(err)
			}
			got <- time.Now()
		}()
		for s := holder.at().store.State(); len(s.Claims(keyspace.LockPrefix+"lock")) < 2; s = holder.at().store.State() {
			<-holder.at().store.Next()
		}
		start := time.Now()
		if err := holder.Unlock(b.Context(), "lock"); err != nil {
			b.Fatal(err)
		}
		took = append(took, (<-got).Sub(start))
		holder, waiter = waiter, holder
		start = time.Now()
		if err := holder.Store(b.Context(), "key", nil); err != nil {
			b.Fatal(err)
		}
		stores = append(stores, time.Since(start))
	}
	b.ReportMetric(float64(median(took).Microseconds()), "µs/hand-over")
	b.ReportMetric(float64(slices.Max(took).Microseconds()), "µs-max")
	b.ReportMetric(float64(median(stores).Microseconds()), "µs/store")
}

// A node that is started again with 10,000 certificates, until it is ready.
func BenchmarkBoot(b *testing.B) {
	var cfg Config
	nodes := benchCluster(b, 3, func(c *Config) {
		c.MaxState = 1 << 30
		if filepath.Base(c.Dir) == "2" {
			cfg = *c
		}
	})
	for i := range 10_000 {
		stem := fmt.Sprintf("certificates/acme/example-%d.com/example-%d.com", i, i)
		records := []state.Record{{Key: stem + ".key", Value: make([]byte, 227)}, {Key: stem + ".crt", Value: make([]byte, 3<<10)}, {Key: stem + ".json", Value: make([]byte, 500)}}
		if err := nodes[0].storage.storeAll(b.Context(), records); err != nil {
			b.Fatal(err)
		}
	}
	node := nodes[2]
	for b.Loop() {
		if err := node.Shutdown(b.Context()); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		var err error
		if node, err = Open(b.Context(), cfg); err != nil {
			b.Fatal(err)
		}
		if err := node.Ready(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms/boot")
		if got := node.store.State().Records.Len(); got != 30_000 {
			b.Fatalf("%d records", got)
		}
	}
	node.Close()
}

// A directory of three in states of other sizes.
func BenchmarkList(b *testing.B) {
	for _, names := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(names), func(b *testing.B) {
			s := state.New()
			for i := range names {
				for _, ext := range []string{"key", "crt", "json"} {
					c := state.Command{Change: state.StoreRecord{Key: fmt.Sprintf("certificates/acme/%d.example.com/%d.example.com.%s", i, i, ext), MaxState: 1 << 40}}
					s, _ = s.Apply(s.Index+1, &c, nil)
				}
			}
			dir := fmt.Sprintf("certificates/acme/%d.example.com", names/2)
			for b.Loop() {
				if got := s.List(dir, false); len(got) != 3 {
					b.Fatal(got)
				}
			}
		})
	}
}

// What an idle cluster costs, all nodes in this process, as a share of one core for each node.
func BenchmarkIdle(b *testing.B) {
	for _, size := range []int{3, 9, 25} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			nodes := benchCluster(b, min(size, membership.MaxVoters), nil)
			for len(nodes) < size {
				dir := b.TempDir()
				node, err := Open(b.Context(), Config{
					Dir: dir, Addr: freeAddrs(b, 1)[0], Secrets: nodes[0].cfg.Secrets, Peers: Static(nodes[0].self.Addr),
				})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { node.Close() })
				ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
				if err := node.Ready(ctx); err != nil {
					b.Fatal(err)
				}
				cancel()
				nodes = append(nodes, node)
			}
			<-time.After(5 * time.Second) // the last to come are being recorded as members
			for b.Loop() {
				before, index := cpuTime(b), nodes[0].store.State().Index
				const span = 10 * time.Second
				<-time.After(span)
				b.ReportMetric(100*float64(cpuTime(b)-before)/float64(span)/float64(size), "%/node")
				if wrote := nodes[0].store.State().Index - index; wrote != 0 {
					b.Errorf("%d entries were written", wrote)
				}
			}
		})
	}
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
