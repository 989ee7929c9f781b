package bench

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

const valueSize = 4 << 10

// store writes a value at a key.
type store = func(ctx context.Context, key string, value []byte) error

// quantile returns the q-quantile of d, which it sorts.
func quantile[T time.Duration | float64](d []T, q float64) T {
	slices.Sort(d)
	return d[min(len(d)-1, int(q*float64(len(d))))]
}

func median[T time.Duration | float64](d []T) T { return quantile(d, 0.5) }

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// side is one of the systems that a benchmark compares. The figures of a run are medians of its
// rounds.
type side struct {
	name string
	put  store

	p50, p99 []time.Duration
	rate     []float64 // operations per second
}

// round writes ops values with several writers, and records the figures.
func (s *side) round(b testing.TB, writers, ops int) {
	b.Helper()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		all  []time.Duration
		fail error
	)
	start := time.Now()
	for w := range writers {
		wg.Go(func() {
			value := make([]byte, valueSize)
			rand.Read(value)
			var mine []time.Duration
			var err error
			for i := range ops / writers {
				began := time.Now()
				if err = s.put(b.Context(), fmt.Sprintf("bench/%d/%d", w, i%16), value); err != nil {
					break
				}
				mine = append(mine, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
			if err != nil {
				fail = err
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	if fail != nil {
		b.Fatalf("%s: %v", s.name, fail)
	}
	s.rate = append(s.rate, float64(len(all))/took.Seconds())
	s.record(all)
}

// record adds the times of a round.
func (s *side) record(all []time.Duration) {
	s.p50 = append(s.p50, quantile(all, 0.5))
	s.p99 = append(s.p99, quantile(all, 0.99))
}

// ratios returns, for each round, a over b.
func ratios[T time.Duration | float64](a, b []T) []float64 {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = float64(a[i]) / float64(b[i])
	}
	return r
}

// newDisk returns a store that overwrites 4 KiB of a file and syncs it. It shows the time of the
// disk alone.
func newDisk(b *testing.B) store {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "f"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return func(_ context.Context, _ string, value []byte) error {
		if _, err := f.WriteAt(value, 0); err != nil {
			return err
		}
		return f.Sync()
	}
}
