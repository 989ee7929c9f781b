package flotilla

import (
	"bytes"
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/testlog"
	"github.com/flotilla-ha/flotilla/kv"
)

// More benchmarks, those that need other software or processes of their own, are in the module in
// bench.

const benchValue = 4 << 10

// benchCluster opens n nodes on loopback, with files, and waits until they are ready.
func benchCluster(b *testing.B, n int, configure func(*Config)) []*Node {
	b.Helper()
	addrs := freeAddrs(b, n)
	nodes := make([]*Node, len(addrs))
	dir, secret := b.TempDir(), NewSecret()
	for i, addr := range addrs {
		cfg := Config{
			Dir:     filepath.Join(dir, fmt.Sprint(i)),
			Addr:    addr,
			Secrets: []Secret{secret},
			Peers:   Static(addrs...),
			Expect:  len(addrs),
		}
		if configure != nil {
			configure(&cfg)
		}
		node, err := Open(b.Context(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { node.Close() })
		nodes[i] = node
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	for _, node := range nodes {
		if err := node.Ready(ctx); err != nil {
			b.Fatal(err)
		}
	}
	return nodes
}

func BenchmarkLoad(b *testing.B) {
	n := benchCluster(b, 1, nil)[0]
	for i := range 100 {
		if err := n.Storage().Store(b.Context(), benchKey(i), make([]byte, benchValue)); err != nil {
			b.Fatal(err)
		}
	}
	key := benchKey(50)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := n.Storage().Load(b.Context(), key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkKVGet(b *testing.B) {
	s := benchCluster(b, 1, nil)[0].KV("bench")
	for _, size := range []int{100, benchValue} {
		if _, err := s.Put(b.Context(), benchKey(size), make([]byte, size), kv.Options{}); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			key := benchKey(size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Get(b.Context(), key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkStatus(b *testing.B) {
	n := benchCluster(b, 1, nil)[0]
	b.ReportAllocs()
	for b.Loop() {
		n.Status()
	}
}

// benchRecords is how many records the snapshots below have; 100,000 of 4 KiB each are 400 MiB, and
// need some 3 GiB of memory.
var benchRecords = flag.Int("records", 100_000, "records in BenchmarkSnapshot…")

func benchKey(i int) string { return fmt.Sprintf("certificates/acme/example-%d.com/%d.crt", i%1000, i) }

// benchState makes a state as the log would.
func benchState(b *testing.B, records int) (*state.State, seal.Secret) {
	b.Helper()
	secret := seal.Secret{1}
	s := state.New()
	s.Cluster, s.Keys = self.NewID(), seal.NewKeyring()
	var err error
	if s.Wrapped, err = s.Keys.Wrap(secret); err != nil {
		b.Fatal(err)
	}
	for i := range records {
		value := make([]byte, benchValue)
		rand.Read(value)
		s, _ = s.Apply(s.Index+1, &state.Command{Change: state.StoreRecord{Key: benchKey(i), Value: value, MaxState: 1 << 40}}, nil)
	}
	return s, secret
}

func BenchmarkSnapshotWrite(b *testing.B) {
	s, _ := benchState(b, *benchRecords)
	b.SetBytes(s.Bytes())
	for b.Loop() {
		if err := state.WriteSnapshot(io.Discard, s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSnapshotRead(b *testing.B) {
	s, secret := benchState(b, *benchRecords)
	var sealed bytes.Buffer
	if err := state.WriteSnapshot(&sealed, s); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(s.Bytes())
	b.ReportAllocs()
	for b.Loop() {
		got, err := state.ReadSnapshot(bytes.NewReader(sealed.Bytes()), []seal.Secret{secret})
		if err != nil || got.Records.Len() != s.Records.Len() {
			b.Fatal(got, err)
		}
	}
}

// BenchmarkSnapshotFiles writes a snapshot to the files that raft has it in, and reads it from
// there as a start of the node does. The first is write-MB/s, the second the benchmark's own rate.
func BenchmarkSnapshotFiles(b *testing.B) {
	s, secret := benchState(b, *benchRecords)
	dir, err := durable.Lock(filepath.Join(b.TempDir(), "node"))
	if err != nil {
		b.Fatal(err)
	}
	defer dir.Close()
	log, err := dir.OpenLog(durable.LogOptions{Create: true})
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	files, err := dir.OpenSnapshots(log, nil)
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	sink, err := files.Create(raft.SnapshotVersionMax, s.Index, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		b.Fatal(err)
	}
	if err := (&snapshot{s, func() {}}).Persist(sink); err != nil {
		b.Fatal(err)
	}
	took := time.Since(began)
	b.SetBytes(s.Bytes())
	for b.Loop() {
		list, err := files.List()
		if err != nil || len(list) == 0 {
			b.Fatal(list, err)
		}
		_, r, err := files.Open(list[0].ID)
		if err != nil {
			b.Fatal(err)
		}
		f := testFSM(applied.New(), []seal.Secret{secret}, testlog.None(), func(err error) { b.Error(err) }, func(*state.Effects) {})
		if err := f.Restore(r); err != nil || f.State().Records.Len() != s.Records.Len() {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(s.Bytes())/1e6/took.Seconds(), "write-MB/s")
}

// BenchmarkSnapshotWriters measures how long writers wait while the leader of three nodes takes a
// snapshot of a large state, writes it to its files and shortens its log, beside the same time
// without one. The first snapshot takes the entries of the whole state out of the log, the next
// only what has come since.
func BenchmarkSnapshotWriters(b *testing.B) {
	nodes := benchCluster(b, 3, func(c *Config) { c.MaxState = 4 << 30 })
	fill := make(chan int)
	var wg sync.WaitGroup
	for w := range 128 {
		node := nodes[w%len(nodes)]
		wg.Go(func() {
			for i := range fill {
				value := make([]byte, benchValue)
				rand.Read(value)
				if err := node.Storage().Store(b.Context(), benchKey(i), value); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range *benchRecords {
		fill <- i
	}
	close(fill)
	wg.Wait()
	leader := nodes[slices.IndexFunc(nodes, func(n *Node) bool { return n.replica.Leading.Load() != nil })]
	b.ResetTimer()
	calm := writeWhile(b, nodes, func() { <-time.After(10 * time.Second) })
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(at(calm, 0.5), "calm-p50-ms")
	b.ReportMetric(at(calm, 0.999), "calm-p99.9-ms")
	b.ReportMetric(at(calm, 1), "calm-max-ms")
	for _, name := range []string{"first", "next"} {
		var took time.Duration
		waits := writeWhile(b, nodes, func() {
			began := time.Now()
			if err := leader.replica.Raft.Load().Snapshot().Error(); err != nil {
				b.Error(err)
			}
			took = time.Since(began)
		})
		b.ReportMetric(at(waits, 0.5), name+"-p50-ms")
		b.ReportMetric(at(waits, 0.999), name+"-p99.9-ms")
		b.ReportMetric(at(waits, 1), name+"-max-ms")
		b.ReportMetric(took.Seconds(), name+"-snapshot-s")
		writeWhile(b, nodes, func() { <-time.After(5 * time.Second) }) // entries for the next
	}
}

// writeWhile has one writer on each node write until f has returned, and returns how long each
// write took.
func writeWhile(b *testing.B, nodes []*Node, f func()) []time.Duration {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		took []time.Duration
	)
	done := make(chan struct{})
	value := make([]byte, benchValue)
	for w, node := range nodes {
		wg.Go(func() {
			for {
				began := time.Now()
				if err := node.Storage().Store(b.Context(), fmt.Sprintf("writer/%d", w), value); err != nil {
					b.Error(err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(began))
				mu.Unlock()
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	f()
	close(done)
	wg.Wait()
	slices.Sort(took)
	return took
}

// at returns the q-quantile of sorted times in milliseconds.
func at(d []time.Duration, q float64) float64 {
	return float64(d[min(len(d)-1, int(q*float64(len(d))))]) / 1e6
}

// BenchmarkScrape is what a node does for a request for its metrics, by the number of names that it
// serves. It has a certificate for each.
func BenchmarkScrape(b *testing.B) {
	for _, size := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			n := benchCluster(b, 1, func(c *Config) { c.TLS.Private, c.MaxState = true, 1<<30 })[0]
			var domains []string
			for i := range size {
				domains = append(domains, fmt.Sprintf("name-%d.example", i))
			}
			if _, err := n.TLSConfig(domains...); err != nil {
				b.Fatal(err)
			}
			for range n.Watch(b.Context()) {
				missing := slices.ContainsFunc(n.Status().Certificates, func(c Certificate) bool { return c.NotAfter.IsZero() })
				if !missing {
					break
				}
			}
			health, request := n.Health(), httptest.NewRequest("GET", "/metrics", nil)
			var answer *httptest.ResponseRecorder
			for b.Loop() {
				answer = httptest.NewRecorder()
				health.ServeHTTP(answer, request)
			}
			b.ReportMetric(float64(answer.Body.Len()), "bytes")
			if answer.Code != http.StatusOK || !strings.Contains(answer.Body.String(), fmt.Sprintf("flotilla_certificates{state=\"valid\"} %d\n", size)) {
				b.Errorf("status %d: %.200s", answer.Code, answer.Body)
			}
		})
	}
}
