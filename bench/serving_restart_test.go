//go:build unix

package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var restarting = flag.Duration("restarting", time.Minute, "how long BenchmarkServingRollingRestart restarts nodes, each once at least; with -short 15 s at most")

// BenchmarkServingRollingRestart makes 500 requests a second and restarts the three nodes one after
// another by SIGTERM, again and again. It does so through HAProxy, which checks /readyz, and
// without a balancer, where clients try the next node when one refuses the connection. Two fifths
// of the requests use new connections, two fifths kept HTTP/1.1 connections, and one fifth kept
// HTTP/2 connections. No request is repeated once it was sent. The benchmark reports the failed
// requests, the longest time without any answer, and the longest wait of one client.
func BenchmarkServingRollingRestart(b *testing.B) {
	for _, name := range []string{"haproxy", "direct"} {
		b.Run(name, func(b *testing.B) {
			if name == "haproxy" {
				needHAProxy(b)
			}
			g := newGiven(b)
			config, err := g.client()
			if err != nil {
				b.Fatal(err)
			}
			nodes := newServers(b, "flotilla", g, "")
			dial := nextOf(nodes)
			if name == "haproxy" {
				dial = newBalancer(b, passing, g, nodes).dial
			}
			ctx, stop := context.WithCancel(b.Context())
			defer stop()
			load := make(chan tally, 1)
			b.ResetTimer()
			go func() { load <- newLoad(b, dial, config).run(ctx) }()

			length := *restarting
			if testing.Short() {
				length = min(length, 15*time.Second)
			}
			var stops []time.Duration
			for began := time.Now(); time.Since(began) < length || len(stops) < len(nodes); {
				n := nodes[len(stops)%len(nodes)]
				stops = append(stops, time.Since(began).Round(time.Millisecond))
				n.restart(b, true)
				n.await(b, g, false)
				time.Sleep(untilUp)
			}
			stop()
			t := <-load
			if len(t.fails) > 0 {
				b.Logf("nodes were stopped after %v; of %d requests failed:\n%v", stops, t.asked, errors.Join(t.fails...))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(t.asked), "requests")
			b.ReportMetric(float64(len(t.fails)), "failed")
			b.ReportMetric(float64(len(stops)), "restarts")
			b.ReportMetric(ms(t.gap), "gap-ms")
			b.ReportMetric(ms(t.longest), "longest-ms")
		})
	}
}

// nextOf returns a dialer that uses the nodes in turn, and the next one if a node refuses.
func nextOf(nodes []*server) dialer {
	addrs := make([]string, len(nodes))
	for i, n := range nodes {
		addrs[i] = n.https
	}
	var turn atomic.Uint64
	return func(ctx context.Context) (conn net.Conn, err error) {
		first := turn.Add(1)
		for i := range addrs {
			conn, err = new(net.Dialer).DialContext(ctx, "tcp", addrs[(first+uint64(i))%uint64(len(addrs))])
			if err == nil || !errors.Is(err, syscall.ECONNREFUSED) {
				break
			}
		}
		return conn, err
	}
}

// load makes requests at a fixed rate.
type load struct {
	ops []func(context.Context) error

	mu   sync.Mutex
	last time.Time
	gap  time.Duration
}

// tally is the result of a load.
type tally struct {
	asked        int
	fails        []error
	gap, longest time.Duration
}

func newLoad(b *testing.B, dial dialer, config *tls.Config) *load {
	l := new(load)
	keep := func(http2 bool) {
		c := newClient(b, dial, config, http2)
		l.ops = append(l.ops, func(context.Context) error { return ask(c) })
	}
	for range 5 {
		for range 2 {
			l.ops = append(l.ops, func(ctx context.Context) error { _, err := visit(ctx, dial, config); return err })
			keep(false)
		}
		keep(true)
	}
	return l
}

// run makes 500 requests a second until ctx is done.
func (l *load) run(ctx context.Context) tally {
	l.last = time.Now()
	every := time.Second * time.Duration(len(l.ops)) / 500
	took, fails := paced(ctx, len(l.ops), every, func(i int) error {
		err := l.ops[i](context.WithoutCancel(ctx)) // the last requests must complete
		if err == nil {
			l.answered(time.Now())
		}
		return err
	})
	return tally{asked: len(took), fails: fails, gap: l.gap, longest: took[len(took)-1]}
}

// answered records that a client has its answer.
func (l *load) answered(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gap, l.last = max(l.gap, at.Sub(l.last)), at
}
