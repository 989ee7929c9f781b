package frontend

import (
	"github.com/flotilla-ha/flotilla/internal/testlog"

	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const proxyV1 = "PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"

// gateServer serves h behind g's listener until the test ends.
func gateServer(t testing.TB, g *Limiter, config *tls.Config, proxies []netip.Prefix, h http.HandlerFunc) string {
	t.Helper()
	tcp, err := ListenTCP(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := Wrap(g, tcp, proxies, config)
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 2 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return tcp.Addr().String()
}

func dialClient(t testing.TB, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Thousands of connections that are slow in each way there is keep nobody else out, and none stays.
func TestSlowClients(t *testing.T) {
	g, config, _ := testTLS(t)
	g.HandshakeTimeout = 4 * time.Second
	n := min(5000, (openFiles()-1000)/2)
	if raceEnabled {
		n = min(n, 1000)
	}
	if n < 500 {
		t.Skipf("%d files are too few", openFiles())
	}
	g.Max = 2 * n // time is to close them, not number
	hello := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) }
	direct := gateServer(t, g, config, nil, hello)
	proxied := gateServer(t, g, config, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, hello)
	record := string(helloBytes("a.test"))
	client := &tls.Config{ServerName: "a.test", InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}

	const drips = 3 // of these say a byte a second
	kinds := []func(i int) (conn net.Conn, drip string){
		func(int) (net.Conn, string) { return dialClient(t, direct), record },
		func(int) (net.Conn, string) { return dialClient(t, proxied), proxyV1 },
		func(int) (net.Conn, string) { return dialClient(t, proxied), "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" },
		func(int) (net.Conn, string) { return dialClient(t, direct), "" },
		func(int) (net.Conn, string) { return dialClient(t, proxied), "" },
		func(int) (net.Conn, string) {
			conn := dialClient(t, direct)
			io.WriteString(conn, record[:len(record)/2])
			return conn, ""
		},
		func(int) (net.Conn, string) { // says hello, and does not answer
			conn := dialClient(t, direct)
			io.WriteString(conn, record)
			return conn, ""
		},
		func(i int) (net.Conn, string) {
			conn := dialClient(t, direct)
			if i%10 == 7 {
				tc := tls.Client(conn, client)
				io.WriteString(tc, "GET / HTTP/1.1\r\nHost: a.test\r\nX-")
				return tc, ""
			}
			return conn, ""
		},
	}
	stop := make(chan struct{})
	var served atomic.Int64
	var healthy, slow, begun sync.WaitGroup
	for _, via := range []struct{ addr, header, want string }{{direct, "", "127.0.0.1:"}, {proxied, proxyV1, "203.0.113.7:4711"}} {
		healthy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := net.Dial("tcp", via.addr)
				if err != nil {
					t.Error(err)
					return
				}
				io.WriteString(conn, via.header)
				body, err := askOn(tls.Client(conn, client))
				conn.Close()
				if err != nil || !strings.HasPrefix(body, via.want) {
					t.Errorf("a healthy client got %q, %v", body, err)
					return
				}
				served.Add(1)
			}
		})
	}
	conns := make(chan int, n)
	for i := range n {
		conns <- i
	}
	close(conns)
	var longest atomic.Int64
	for range 8 {
		begun.Go(func() {
			for i := range conns {
				conn, drip := kinds[i%len(kinds)](i)
				start := time.Now()
				slow.Go(func() {
					io.Copy(io.Discard, conn) // until it is closed
					for took := int64(time.Since(start)); ; {
						if old := longest.Load(); took <= old || longest.CompareAndSwap(old, took) {
							return
						}
					}
				})
				if drip != "" && i%drips == 0 {
					slow.Go(func() {
						tick := time.NewTicker(time.Second)
						defer tick.Stop()
						for b := range []byte(drip) {
							if _, err := io.WriteString(conn, drip[b:b+1]); err != nil {
								return
							}
							<-tick.C
						}
					})
				}
			}
		})
	}
	begun.Wait()
	atStart := served.Load()
	slow.Wait()
	close(stop)
	healthy.Wait()
	t.Logf("%d slow connections, the last closed after %v; %d healthy requests, %d of them while they were there",
		n, time.Duration(longest.Load()), served.Load(), served.Load()-atStart)
	if served.Load() == atStart {
		t.Error("nobody was served")
	}
	if limit := g.HandshakeTimeout + 10*time.Second; time.Duration(longest.Load()) > limit {
		t.Errorf("one stayed for %v", time.Duration(longest.Load()))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if left := g.pending.Len(); left > 2 {
		t.Errorf("%d are still pending", left)
	}
}

// One more than may be pending closes the one that is longest without progress, and those that are through count no more.
func TestPendingConnectionsAreBounded(t *testing.T) {
	g, config, _ := testTLS(t)
	g.Max = 3
	addr := gateServer(t, g, config, nil, func(w http.ResponseWriter, r *http.Request) {})
	through := tls.Client(dialClient(t, addr), &tls.Config{ServerName: "a.test", InsecureSkipVerify: true})
	if _, err := io.WriteString(through, "GET / HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	pending := func() int { g.mu.Lock(); defer g.mu.Unlock(); return g.pending.Len() }
	until := func(what string, ok func() bool) {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
			if time.Now().After(end) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	until("a connection is through", func() bool { return pending() == 0 })
	asked := dialClient(t, addr) // says hello, which is progress, after the next one came
	until("one pending", func() bool { return pending() == 1 })
	first := dialClient(t, addr)
	until("two pending", func() bool { return pending() == 2 })
	asked.Write(helloBytes("a.test"))
	if _, err := asked.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	second := dialClient(t, addr)
	until("three pending", func() bool { return pending() == 3 })
	third := dialClient(t, addr)
	if _, err := io.Copy(io.Discard, first); err != nil {
		t.Error(err)
	}
	if n := pending(); n != 3 {
		t.Errorf("%d are pending", n)
	}
	for i, conn := range []net.Conn{second, third} {
		conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d: %v, want it open", i, err)
		}
	}
	if _, err := io.WriteString(through, "Host: a.test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := through.Read(make([]byte, 1)); err != nil {
		t.Errorf("an established connection: %v", err)
	}
	third.Close()
	until("a closed one is forgotten", func() bool { return pending() == 2 })
}

// Handshakes wait for their turn, in which nobody stays who waits for the client or for a certificate; and the slots come back.
func TestHandshakesAtOnce(t *testing.T) {
	g, config, _ := testTLS(t)
	g.Slots = make(chan struct{}, 1)
	g.HandshakeTimeout = time.Minute
	known, certificate := make(chan struct{}), config.GetCertificate
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if hello.ServerName == "slow.test" {
			releaseSlot(hello.Conn)
			<-known
		}
		return certificate(hello)
	}
	addr := gateServer(t, g, config, nil, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
	ask := func() error {
		conn := dialClient(t, addr)
		conn.SetDeadline(time.Now().Add(3 * time.Second)) // it would get its turn when the slow one gives up
		_, err := askOn(tls.Client(conn, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true}))
		return err
	}
	waiting := dialClient(t, addr) // heard, and does not answer
	waiting.Write(helloBytes("a.test"))
	if _, err := waiting.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	dialClient(t, addr).Write(helloBytes("slow.test"))
	for range 10 { // it is heard before the last of these
		if err := ask(); err != nil {
			t.Fatalf("while others wait: %v", err)
		}
	}
	close(known)

	g.Slots <- struct{}{} // somebody computes
	asked := make(chan error)
	go func() { asked <- ask() }()
	gone := dialClient(t, addr)
	gone.Write(helloBytes("a.test"))
	select {
	case err := <-asked:
		t.Errorf("a handshake did not wait for its turn: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	<-g.Slots
	if err := <-asked; err != nil {
		t.Error(err)
	}
	gone.Close()
	for range 20 {
		if err := ask(); err != nil {
			t.Fatal(err)
		}
	}
}

// A client that does not read is closed after a time; one that reads slowly is not; and deadlines from above hold.
func TestWriteStall(t *testing.T) {
	listen := func(t *testing.T, stall time.Duration) (server *limitedConn, client *net.TCPConn) {
		ln := listenLoopback(t, "127.0.0.1:0")
		peer := dialClient(t, ln.Addr().String())
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		g := NewLimiter(testlog.None())
		g.stall = stall
		gated := g.Take(conn, &tls.Config{})
		t.Cleanup(func() { gated.TLS.Close() })
		return gated, peer.(*net.TCPConn)
	}
	big := make([]byte, 32<<20)
	t.Run("nothing is read", func(t *testing.T) {
		server, client := listen(t, 600*time.Millisecond)
		start := time.Now()
		n, err := server.Write(big)
		if !errors.Is(err, os.ErrDeadlineExceeded) || n == len(big) {
			t.Errorf("Write: %d, %v", n, err)
		}
		if took := time.Since(start); took < 600*time.Millisecond {
			t.Errorf("closed after %v", took)
		}
		if _, err := io.Copy(io.Discard, client); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client was told that this is the end, and not reset: %v", err)
		}
	})
	// Of what it has not taken the kernel keeps little, so that a megabyte of it, and with it a third of the kernel's buffer, need not go for each write.
	t.Run("read slowly", func(t *testing.T) {
		const stall, record = time.Second, 16 << 10
		server, client := listen(t, stall)
		client.SetReadBuffer(64 << 10)
		written := make(chan error, 1)
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					written <- nil
					return
				default:
				}
				if _, err := server.Write(big[:record]); err != nil {
					written <- err
					return
				}
			}
		}()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(4 * stall); time.Now().Before(end); <-tick.C {
			if _, err := io.ReadFull(client, make([]byte, record)); err != nil {
				t.Fatal(err)
			}
		}
		close(stop)
		go io.Copy(io.Discard, client)
		if err := <-written; err != nil {
			t.Error(err)
		}
	})
	t.Run("an earlier deadline", func(t *testing.T) {
		server, _ := listen(t, time.Hour)
		server.Write([]byte("x")) // ours is set
		server.SetDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := server.Write(big); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
	t.Run("a later deadline", func(t *testing.T) {
		server, _ := listen(t, 300*time.Millisecond)
		server.SetWriteDeadline(time.Now().Add(time.Hour))
		if _, err := server.Write(big); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
}

// No bytes break the chain, and from a source that is not trusted none change the client's address.
func FuzzGate(f *testing.F) {
	g, config, _ := testTLS(f)
	g.HandshakeTimeout = time.Second
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x07\xc0\x00\x02\x01\x12\x67\x01\xbb"
	for _, seed := range []string{"", proxyV1, v2, v2[:14], v2 + proxyV1, "PROXY UNKNOWN\r\n", strings.Replace(v2, "\x21\x11", "\x21\x31\x00\x10", 1)} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed+string(helloBytes("a.test"))), false)
	}
	listeners := map[bool]net.Listener{}
	for trusted, prefix := range map[bool]string{true: "127.0.0.0/8", false: "192.0.2.0/24"} {
		tcp, err := ListenTCP(f.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			f.Fatal(err)
		}
		listeners[trusted] = Wrap(g, tcp, []netip.Prefix{netip.MustParsePrefix(prefix)}, config)
		f.Cleanup(func() { tcp.Close() })
	}
	f.Fuzz(func(t *testing.T, input []byte, trusted bool) {
		client, err := net.Dial("tcp", listeners[trusted].Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		conn, err := listeners[trusted].Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		client.Write(input)
		client.(*net.TCPConn).CloseWrite()
		addr := conn.RemoteAddr()
		if addr == nil || !trusted && addr.String() != client.LocalAddr().String() {
			t.Errorf("RemoteAddr %v", addr)
		}
		if n, err := io.Copy(io.Discard, conn); err == nil && n > 0 {
			t.Error("data without a handshake")
		}
		if got := fmt.Sprint(addr); trusted && !bytes.HasPrefix(input, []byte("PROXY ")) && !bytes.HasPrefix(input, []byte("\r\n\r\n\x00\r\nQUIT\n")) && got != client.LocalAddr().String() {
			t.Errorf("RemoteAddr %s without a header", got)
		}
	})
}
