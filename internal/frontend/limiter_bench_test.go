package frontend

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkWrap shows what the limits cost over crypto/tls alone, with the same configuration, for
// a connection with its full handshake and a byte. It reports ratios of medians: without PROXY
// headers, with headers that only other peers send, and with a header. The listeners alternate
// within a run, so that all have the same machine. The ratios should be at most 1.05;
// -benchtime=2000x.
func BenchmarkWrap(b *testing.B) {
	config, _ := testTLS(b)
	elsewhere := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	wrapped := func(proxies []netip.Prefix) net.Listener {
		return serverWith(proxies, unchanged).Wrap(listenLoopback(b, "127.0.0.1:0"), config)
	}
	kinds := []struct {
		name, header string
		ln           net.Listener
		spent        []time.Duration
	}{
		{name: "bare", ln: tls.NewListener(listenLoopback(b, "127.0.0.1:0"), config)},
		{name: "none", ln: wrapped(nil)},
		{name: "other", ln: wrapped(elsewhere)},
		{name: "header", ln: wrapped(loopback()), header: proxyV1},
	}
	client := insecure()
	for _, k := range kinds {
		defer k.ln.Close()
		go func() {
			for {
				conn, err := k.ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					io.CopyN(conn, conn, 1)
				}()
			}
		}()
	}
	one := func(addr net.Addr, header string) time.Duration {
		start := time.Now()
		conn, err := net.Dial("tcp", addr.String())
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, header)
		tc := tls.Client(conn, client)
		if _, err := tc.Write([]byte{'x'}); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(tc, make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}
	n := 0
	for b.Loop() {
		for i := range kinds {
			k := &kinds[(i+n)%len(kinds)]
			k.spent = append(k.spent, one(k.ln.Addr(), k.header))
		}
		n++
	}
	median := func(d []time.Duration) float64 { slices.Sort(d); return float64(d[len(d)/2]) }
	base := median(kinds[0].spent)
	b.ReportMetric(base/1e3, "bare-us")
	for _, k := range kinds[1:] {
		b.ReportMetric(median(k.spent)/base, k.name+"-ratio")
	}
}

// floodEnv makes the test binary a client that begins handshakes and counts the answers, without
// any cryptography: it sends a recorded hello again and again, to the address that it last read
// from its standard input. For each address that it reads it prints how many answers there were.
const floodEnv = "FLOTILLA_TEST_FLOOD"

// TestFloodClient is no test, but the process of BenchmarkFlood.
func TestFloodClient(t *testing.T) {
	if os.Getenv(floodEnv) == "" {
		t.Skip("it runs in a process of its own")
	}
	hello := helloBytes("a.test")
	var answered atomic.Int64
	var target atomic.Pointer[string]
	idle := ""
	target.Store(&idle)
	for range 400 {
		go func() {
			for {
				addr := *target.Load()
				conn, err := net.Dial("tcp", addr)
				if addr == "" || err != nil {
					<-time.After(time.Millisecond)
					continue
				}
				conn.Write(hello)
				if _, err := io.ReadAtLeast(conn, make([]byte, 8<<10), 1); err == nil {
					answered.Add(1)
				}
				conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			}
		}()
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		addr := lines.Text()
		target.Store(&addr)
		fmt.Println(answered.Swap(0))
	}
}

// BenchmarkFlood shows how long requests on established connections take during a flood of
// handshakes, with and without the bound on handshakes that are computed at once, and how many
// handshakes were answered meanwhile. The servers alternate within each round; -benchtime=20x.
func BenchmarkFlood(b *testing.B) {
	const (
		clients  = 4
		requests = 50
		before   = 300 * time.Millisecond // until the flood has moved to the next server
	)
	kinds := []*struct {
		name     string
		slots    int // 0: no flood
		addr     string
		conns    [clients]*tls.Conn
		spent    []time.Duration
		took     time.Duration
		answered int
	}{
		{name: "calm"}, {name: "one-left", slots: max(1, runtime.GOMAXPROCS(0)-1)}, {name: "bound-1x", slots: runtime.GOMAXPROCS(0)},
		{name: "bound-2x", slots: 2 * runtime.GOMAXPROCS(0)}, {name: "unbounded", slots: 1 << 20},
	}
	for _, k := range kinds {
		config, _ := testTLS(b)
		server := serverWith(nil, func(l *limits) { l.slots = max(1, k.slots) })
		k.addr = serveBehind(b, server, config, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
		for i := range k.conns {
			conn, err := tls.Dial("tcp", k.addr, insecure())
			if err != nil {
				b.Fatal(err)
			}
			k.conns[i] = conn
			defer k.conns[i].Close()
		}
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestFloodClient$")
	cmd.Env = append(os.Environ(), floodEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	r := bufio.NewReader(out)
	flood := func(addr string) (answered int) {
		fmt.Fprintln(in, addr)
		if _, err := fmt.Fscanln(r, &answered); err != nil {
			b.Fatal(err)
		}
		return answered
	}
	round := 0
	for b.Loop() {
		for i := range kinds {
			k := kinds[(i+round)%len(kinds)]
			target := k.addr
			if k.slots == 0 {
				target = ""
			}
			flood(target)
			<-time.After(before)
			flood(target)
			begin := time.Now()
			var mu sync.Mutex
			var all sync.WaitGroup
			for _, conn := range k.conns {
				all.Go(func() {
					r := bufio.NewReader(conn)
					tick := time.NewTicker(5 * time.Millisecond)
					defer tick.Stop()
					for range requests {
						<-tick.C
						begin := time.Now()
						io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
						res, err := http.ReadResponse(r, nil)
						if err != nil {
							b.Error(err)
							return
						}
						io.Copy(io.Discard, res.Body)
						mu.Lock()
						k.spent = append(k.spent, time.Since(begin))
						mu.Unlock()
					}
				})
			}
			all.Wait()
			k.took += time.Since(begin)
			k.answered += flood("")
		}
		round++
	}
	for _, k := range kinds {
		slices.Sort(k.spent)
		if len(k.spent) == 0 {
			b.Fatal("nothing was answered")
		}
		b.ReportMetric(float64(k.spent[len(k.spent)/2])/1e6, k.name+"-p50-ms")
		b.ReportMetric(float64(k.spent[len(k.spent)*99/100])/1e6, k.name+"-p99-ms")
		b.ReportMetric(float64(k.answered)/k.took.Seconds(), k.name+"-handshakes/s")
	}
}
