package flotilla

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// benchTLS returns the certificates and a configuration that serves a.test.
func benchTLS(tb testing.TB) (*certs, *tls.Config) {
	tb.Helper()
	c, err := newCerts(TLS{}, newMemStorage(), true, always, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.close)
	config, err := c.tlsConfig("a.test")
	if err != nil {
		tb.Fatal(err)
	}
	c.work.Wait()
	return c, config
}

// BenchmarkListener shows what the listener costs over crypto/tls alone: a connection, its full handshake, and a byte. Listeners take turns
// within a run, so that all have the same machine.
func BenchmarkListener(b *testing.B) {
	c, config := benchTLS(b)
	const header = "PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"
	elsewhere, here := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	listen := func() net.Listener {
		ln, err := listenTCP(b.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		return ln
	}
	bare := config.Clone()
	bare.GetConfigForClient, bare.GetCertificate = nil, c.config.GetCertificate
	kinds := []struct {
		name, header string
		ln           net.Listener
		spent        []time.Duration
	}{
		{name: "bare", ln: tls.NewListener(listen(), bare)},
		{name: "none", ln: c.listenTLS(listen(), nil, config)},
		{name: "other", ln: c.listenTLS(listen(), elsewhere, config)},
		{name: "header", ln: c.listenTLS(listen(), here, config), header: header},
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
		b.ReportMetric(100*(median(k.spent)/base-1), k.name+"-%")
	}
}

// floodEnv makes the test binary a client that begins handshakes at the address and hears their answers, with no cryptography
// of its own: it says a recorded hello again and again.
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
	addr := os.Getenv(floodEnv)
	if addr == "" {
		t.Skip("it runs in a process of its own")
	}
	hello := helloBytes("a.test")
	var answered atomic.Int64
	for range 400 {
		go func() {
			for {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
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
	fmt.Println("flooding")
	io.Copy(io.Discard, os.Stdin) // until the parent has gone
	fmt.Println(answered.Load())
}

// BenchmarkFlood shows how long requests on established connections take during a flood of handshakes, with and without the bound on those
// that are computed at once.
func BenchmarkFlood(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	for _, slots := range []int{0, 1, 2, 4, 8, 1 << 20} {
		b.Run(map[int]string{0: "no flood", 1 << 20: "unbounded"}[slots]+strings.Repeat(fmt.Sprint(slots), min(1, slots%(1<<20))), func(b *testing.B) {
			c, config := benchTLS(b)
			if slots > 0 {
				c.gate.slots = make(chan struct{}, slots)
			}
			tcp, err := listenTCP(b.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })}
			go srv.Serve(c.listenTLS(tcp, nil, config))
			defer srv.Close()
			const clients = 4
			var conns [clients]*tls.Conn
			for i := range conns {
				if conns[i], err = tls.Dial("tcp", tcp.Addr().String(), &tls.Config{ServerName: "a.test", InsecureSkipVerify: true}); err != nil {
					b.Fatal(err)
				}
				defer conns[i].Close()
			}
			var answered bytes.Buffer
			if slots > 0 {
				cmd := exec.Command(self, "-test.run=^TestFloodClient$")
				cmd.Env = append(os.Environ(), floodEnv+"="+tcp.Addr().String())
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
				r := bufio.NewReader(out)
				if line, err := r.ReadString('\n'); err != nil || line != "flooding\n" {
					b.Fatalf("%q %v", line, err)
				}
				defer func() {
					in.Close()
					io.Copy(&answered, r)
					cmd.Wait()
					first, _, _ := strings.Cut(answered.String(), "\n")
					b.Logf("%s handshakes answered", first)
				}()
			}
			var mu sync.Mutex
			var spent []time.Duration
			var turn atomic.Int64
			b.ResetTimer()
			var all sync.WaitGroup
			for _, conn := range conns {
				all.Go(func() {
					r := bufio.NewReader(conn)
					tick := time.NewTicker(5 * time.Millisecond)
					defer tick.Stop()
					for turn.Add(1) <= int64(b.N) {
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
						spent = append(spent, time.Since(begin))
						mu.Unlock()
					}
				})
			}
			all.Wait()
			b.StopTimer()
			slices.Sort(spent)
			b.ReportMetric(float64(spent[len(spent)/2])/1e6, "p50-ms")
			b.ReportMetric(float64(spent[len(spent)*99/100])/1e6, "p99-ms")
		})
	}
}
