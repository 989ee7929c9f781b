package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/kv"
)

// watchPrefix is what the watchers of BenchmarkRecords watch.
const watchPrefix = "watch/"

// versioned writes a value and returns its version.
type versioned func(ctx context.Context, key string, value []byte) (uint64, error)

func kvVersioned(s *kv.Store) versioned {
	return func(ctx context.Context, key string, value []byte) (uint64, error) {
		e, err := s.Put(ctx, key, value, kv.Options{})
		return e.Version, err
	}
}

func etcdVersioned(c *clientv3.Client) versioned {
	return func(ctx context.Context, key string, value []byte) (uint64, error) {
		done, err := c.Put(ctx, key, string(value))
		if err != nil {
			return 0, err
		}
		return uint64(done.Header.Revision), nil
	}
}

// seen is an event at a watcher.
type seen struct {
	version uint64
	at      time.Time
}

// watched is a writer with watchers. It measures when their events come.
type watched struct {
	name            string
	put             versioned
	watchers        []<-chan seen
	begun, returned *side // times after the call of put, and after its return
}

func newWatched(name string, put versioned) *watched {
	return &watched{name: name, put: put, begun: &side{name: name}, returned: &side{name: name}}
}

// watchKV adds a watcher on a node.
func (w *watched) watchKV(b *testing.B, n *flotilla.Node) {
	events := make(chan seen, 1024)
	go func() {
		defer close(events)
		for e, err := range n.KV("bench").Watch(b.Context(), watchPrefix) {
			if err != nil {
				return // the benchmark is over, or the writer notices
			}
			events <- seen{e.Entry.Version, time.Now()}
		}
	}()
	w.watchers = append(w.watchers, events)
}

// watchEtcd adds a watcher that is connected to a member of etcd.
func (w *watched) watchEtcd(b *testing.B, c *clientv3.Client) {
	b.Helper()
	events := make(chan seen, 1024)
	replies := c.Watch(b.Context(), watchPrefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if first := <-replies; !first.Created {
		b.Fatalf("etcd does not watch: %v", first.Err())
	}
	go func() {
		defer close(events)
		for r := range replies {
			for _, e := range r.Events {
				events <- seen{uint64(e.Kv.ModRevision), time.Now()}
			}
		}
	}()
	w.watchers = append(w.watchers, events)
}

// round writes values, each when all watchers have seen the one before, and records the figures.
func (w *watched) round(b *testing.B, ops int) {
	b.Helper()
	var begun, returned []time.Duration
	for i := range ops {
		start := time.Now()
		version, err := w.put(b.Context(), fmt.Sprint(watchPrefix, i%16), make([]byte, valueSize))
		end := time.Now()
		if err != nil {
			b.Fatalf("%s: %v", w.name, err)
		}
		for _, events := range w.watchers {
			at := w.await(b, events, version)
			begun, returned = append(begun, at.Sub(start)), append(returned, at.Sub(end))
		}
	}
	w.begun.record(begun)
	w.returned.record(returned)
}

// await returns when a watcher has seen a version.
func (w *watched) await(b *testing.B, events <-chan seen, version uint64) time.Time {
	b.Helper()
	timeout := time.After(readyTimeout)
	for {
		select {
		case s, ok := <-events:
			if !ok || s.version > version {
				b.Fatalf("%s: a watch has ended, or has no event of version %d", w.name, version)
			}
			if s.version == version {
				return s.at
			}
		case <-timeout:
			b.Fatalf("%s: no event of version %d", w.name, version)
		}
	}
}

// BenchmarkRecordsWatchers measures what 1,000 watchers, spread over three nodes, cost a writer on
// a follower. In a round it writes without watchers, while each watcher watches a prefix of its own
// that nobody writes to, and while all watch the prefix that is written to. Others and same are
// medians of the quotients of p50 within one round. Events is how many a write caused in the last
// of the three: a watcher that falls behind may get only the newest change of an entry.
//
// All nodes and watchers share the processors of this machine, so a writer that never waits (fast)
// shows what the events take from it. One that writes fifty times a second (paced) shows what they
// add to a write.
func BenchmarkRecordsWatchers(b *testing.B) {
	b.Run("paced", func(b *testing.B) {
		const ops = 150
		watchWriter(b, ops, func(s *side) {
			tick := time.NewTicker(time.Second / 50)
			defer tick.Stop()
			var all []time.Duration
			for i := range ops {
				<-tick.C
				began := time.Now()
				if err := s.put(b.Context(), fmt.Sprint("bench/", i%16), make([]byte, valueSize)); err != nil {
					b.Fatal(err)
				}
				all = append(all, time.Since(began))
			}
			s.record(all)
		})
	})
	b.Run("fast", func(b *testing.B) {
		const ops = 300
		watchWriter(b, ops, func(s *side) { s.round(b, 1, ops) })
	})
}

// watchWriter is BenchmarkRecordsWatchers with a function that writes ops values.
func watchWriter(b *testing.B, ops int, write func(*side)) {
	const watchers = 1000
	c := newCluster(b)
	s := c.follower(b).KV("bench")
	own := func(i int) string { return fmt.Sprintf("own/%d/", i) }
	written := func(int) string { return "bench/" }
	if err := each(watchers, func(i int) error {
		_, err := s.Put(b.Context(), own(i), nil, kv.Options{})
		return err
	}); err != nil {
		b.Fatal(err)
	}
	newSide := func(name string) *side { return &side{name: name, put: kvPut(s)} }
	alone, others, same := newSide("alone"), newSide("others"), newSide("same")
	write(newSide("first")) // the entries that are written exist
	var events []float64
	b.ResetTimer()
	for range *rounds {
		write(alone)
		_, stop := watchAll(b, c, watchers, own)
		write(others)
		stop()
		count, stop := watchAll(b, c, watchers, written)
		before := count.Load()
		write(same)
		stop()
		events = append(events, float64(count.Load()-before)/float64(ops))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(median(alone.p50)), "p50-ms")
	b.ReportMetric(median(ratios(others.p50, alone.p50)), "others")
	b.ReportMetric(median(ratios(same.p50, alone.p50)), "same")
	b.ReportMetric(ms(median(alone.p99)), "p99-ms")
	b.ReportMetric(ms(median(others.p99)), "others-p99-ms")
	b.ReportMetric(ms(median(same.p99)), "same-p99-ms")
	b.ReportMetric(median(events), "events")
}

// watchAll starts n watchers, in turn on the nodes, and waits until each has its first event: there
// must be an entry for it. It counts all events. The caller calls stop, which ends all watchers.
func watchAll(b *testing.B, c *cluster, n int, prefix func(i int) string) (events *atomic.Int64, stop func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	events = new(atomic.Int64)
	var running, begun sync.WaitGroup
	begun.Add(n)
	for i := range n {
		running.Go(func() {
			first := true
			for _, err := range c.nodes[i%len(c.nodes)].KV("bench").Watch(ctx, prefix(i)) {
				if err != nil {
					if ctx.Err() == nil {
						b.Error(err)
					}
					return
				}
				if events.Add(1); first {
					first = false
					begun.Done()
				}
			}
		})
	}
	begun.Wait()
	return events, func() { cancel(); running.Wait() }
}
