package frontend

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log"
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

// BenchmarkListener shows what the listener costs over crypto/tls alone with the same configuration: a connection, its full handshake, and a
// byte, in ratios of medians: for nobody's PROXY header, for one that others send, and for one that is sent. Listeners take turns within a run, so
// that all have the same machine. No more than 1.05 is wanted; -benchtime=2000x.
func BenchmarkListener(b *testing.B) {
	g, config, _ := testTLS(b)
	const header = "PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"
	elsewhere, here := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	listen := func() net.Listener {
		ln, err := ListenTCP(b.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		return ln
	}
	kinds := []struct {
		name, header string
		ln           net.Listener
		spent        []time.Duration
	}{
		{name: "bare", ln: tls.NewListener(listen(), config)},
		{name: "none", ln: Wrap(g, listen(), nil, config)},
		{name: "other", ln: Wrap(g, listen(), elsewhere, config)},
		{name: "header", ln: Wrap(g, listen(), here, config), header: header},
	}
	client := &tls.Config{ServerName: "a.test", InsecureSkipVerify: true}
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

// floodEnv makes the test binary a client that begins handshakes and hears their answers, with no cryptography of its own: it says a recorded
// hello again and again, to the address that it last read, and for each address that it reads it says how many answers there were.
const floodEnv = "FLOTILLA_TEST_FLOOD"

// helloBytes returns a ClientHello.
func helloBytes(name string) []byte {
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		defer client.Close()
		tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
	}()
	buf := make([]byte, 16<<10)
	n, _ := io.ReadAtLeast(server, buf, 5)
	m, _ := io.ReadFull(server, buf[n:5+int(buf[3])<<8+int(buf[4])])
	return buf[:n+m]
}

// TestFloodClient is not a test, but the process of BenchmarkFlood.
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

// BenchmarkFlood shows how long requests on established connections take during a flood of handshakes, with and without the bound on those
// that are computed at once, and how many were answered meanwhile. Servers take turns within each round; -benchtime=20x.
func BenchmarkFlood(b *testing.B) {
	const (
		clients  = 4
		requests = 50
		before   = 300 * time.Millisecond // until the flood has gone over
	)
	kinds := []*struct {
		name     string
		slots    int // 0: no flood
		addr     string
		conns    [clients]*tls.Conn
		spent    []time.Duration
		took     time.Duration
		answered int
	}{{name: "calm"}, {name: "one-left", slots: max(1, runtime.GOMAXPROCS(0)-1)}, {name: "bound-1x", slots: runtime.GOMAXPROCS(0)}, {name: "bound-2x", slots: 2 * runtime.GOMAXPROCS(0)}, {name: "unbounded", slots: 1 << 20}}
	for _, k := range kinds {
		g, config, _ := testTLS(b)
		g.Slots = make(chan struct{}, max(1, k.slots))
		tcp, err := ListenTCP(b.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })}
		go srv.Serve(Wrap(g, tcp, nil, config))
		defer srv.Close()
		k.addr = tcp.Addr().String()
		for i := range k.conns {
			if k.conns[i], err = tls.Dial("tcp", k.addr, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true}); err != nil {
				b.Fatal(err)
			}
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
