//go:build unix

package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/bench/internal/proc"
)

const (
	slowTarget = "BENCH_TARGET" // names the variable with the address that slow clients connect to

	slowClients = 5100             // some are between two connections
	slowSources = 50               // their addresses
	slowRamp    = 10 * time.Second // they begin evenly in this time, and so also return evenly
	slowDrip    = 3 * time.Second  // between bytes
	slowMeasure = 4 * time.Second
)

// runSlow keeps slow connections open, and reopens those that are closed. It answers the lines
// "open", "count" and "close" of its standard input, each by a line on its standard output.
func runSlow(ctx context.Context) error {
	config, err := given{os.Getenv(asCert)}.client()
	if err != nil {
		return err
	}
	var (
		s      = slow{target: os.Getenv(slowTarget), config: config}
		wg     sync.WaitGroup
		cancel = func() {}
	)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		switch in.Text() {
		case "open":
			var open context.Context
			open, cancel = context.WithCancel(ctx)
			for i := range slowClients {
				wg.Go(func() { s.stay(open, i) })
			}
			time.Sleep(slowRamp + time.Second)
			fmt.Println("ok")
		case "count":
			fmt.Println(s.open.Load())
		case "close":
			cancel()
			wg.Wait()
			fmt.Println("ok")
		}
	}
	cancel()
	return in.Err()
}

// slow are the slow clients of a process.
type slow struct {
	target string
	config *tls.Config
	open   atomic.Int64
}

// stay keeps the connection of one client open until ctx is done.
func (s *slow) stay(ctx context.Context, i int) {
	pause := slowRamp * time.Duration(i) / slowClients
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		began := time.Now()
		s.once(ctx, i)
		if pause = 0; time.Since(began) < time.Second { // refused
			pause = time.Second / 2
		}
	}
}

// once connects, sends too little, and returns when the server closes the connection.
func (s *slow) once(ctx context.Context, i int) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%slowSources))}, Timeout: servingLimit}
	conn, err := dialer.DialContext(ctx, "tcp", s.target)
	if err != nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	s.open.Add(1)
	defer s.open.Add(-1)
	said, drip := "", ""
	switch i % 3 {
	case 0: // silent
	case 1: // half a hello
		said, drip = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\x00"
	case 2: // half a header
		conn = tls.Client(conn, s.config)
		conn.SetDeadline(time.Now().Add(slowRamp))
		said, drip = "GET / HTTP/1.1\r\nHost: "+host+"\r\nX-Slow: ", "x"
	}
	for b := make([]byte, 1<<10); ; {
		if _, err := conn.Write([]byte(said)); err != nil {
			return
		}
		for err = nil; err == nil; {
			conn.SetReadDeadline(time.Now().Add(slowDrip))
			_, err = conn.Read(b)
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		conn.SetWriteDeadline(time.Now().Add(slowDrip))
		said = drip
	}
}

// newSlow starts a process of slow clients of a server. No connection is open yet.
func newSlow(b *testing.B, g given, target string) *process {
	b.Helper()
	env := append(os.Environ(), proc.RoleVariable+"=slow", asCert+"="+g.dir, slowTarget+"="+target)
	p := &process{&proc.Process{Env: env, Nice: true}} // real clients have their own machines
	b.Cleanup(p.Kill)
	p.start(b)
	return p
}

// BenchmarkServingSlowClients measures the waits of healthy clients of a node, separately for new
// connections and for kept ones, while 5,000 slow connections to the node are open and while none
// is, in turn. A third of the slow clients is silent, a third sends its hello byte by byte, a third
// its header. The node closes them after a while, and they come back at once: 500 in a second, a
// third of them with a complete handshake. The clients keep a fixed rate. net/http with the same
// deadlines shows the part of the machine, which has both ends.
func BenchmarkServingSlowClients(b *testing.B) {
	needFiles(b, slowClients+1000)
	for _, role := range []string{"flotilla", "plain"} {
		b.Run(role, func(b *testing.B) { slowClientsOf(b, role) })
	}
}

func slowClientsOf(b *testing.B, role string) {
	g := newGiven(b)
	config, err := g.client()
	if err != nil {
		b.Fatal(err)
	}
	node := newServers(b, role, g, "")[0]
	slow := newSlow(b, g, node.https)
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", node.https)
	}

	const clients = 8
	var kept [clients]*http.Client
	for i := range kept {
		kept[i] = newClient(b, dial, config, false)
	}
	type wait struct{ fresh, kept []time.Duration } // p99 of each round
	var calm, crowded wait
	var failed, asked int
	var first error
	measure := func(w *wait) {
		var wg sync.WaitGroup
		ctx, cancel := context.WithTimeout(b.Context(), slowMeasure)
		defer cancel()
		var mu sync.Mutex
		run := func(p99 *[]time.Duration, every time.Duration, op func(int) error) {
			wg.Go(func() {
				took, fails := paced(ctx, clients, every, op)
				mu.Lock()
				defer mu.Unlock()
				*p99 = append(*p99, quantile(took, 0.99))
				asked, failed = asked+len(took), failed+len(fails)
				if first == nil && len(fails) > 0 {
					first = fails[0]
				}
			})
		}
		run(&w.fresh, 40*time.Millisecond, func(int) error { _, err := visit(b.Context(), dial, config); return err })
		run(&w.kept, 20*time.Millisecond, func(i int) error { return ask(kept[i]) })
		wg.Wait()
	}
	say := func(line string) string {
		answer, err := slow.Ask(line)
		if err != nil {
			b.Fatal(err)
		}
		return answer
	}
	measure(new(wait)) // fills connections and caches
	b.ResetTimer()
	var open []float64
	count := func() {
		n, err := strconv.ParseFloat(say("count"), 64)
		if err != nil {
			b.Fatal(err)
		}
		open = append(open, n)
	}
	for range tries(4) {
		measure(&calm)
		say("open")
		count()
		measure(&crowded)
		count()
		say("close")
		time.Sleep(time.Second) // the node notices
	}
	if first != nil {
		b.Logf("%d of %d requests failed, the first: %v", failed, asked, first)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ratios(crowded.fresh, calm.fresh)), "new-ratio")
	b.ReportMetric(median(ratios(crowded.kept, calm.kept)), "kept-ratio")
	b.ReportMetric(ms(median(calm.fresh)), "new-p99-ms")
	b.ReportMetric(ms(median(crowded.fresh)), "new-slow-p99-ms")
	b.ReportMetric(ms(median(calm.kept)), "kept-p99-ms")
	b.ReportMetric(ms(median(crowded.kept)), "kept-slow-p99-ms")
	b.ReportMetric(slices.Min(open), "open")
	b.ReportMetric(float64(failed), "failed")
}
