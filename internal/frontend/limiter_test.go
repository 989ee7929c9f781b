package frontend

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
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

// Thousands of connections that are slow in every possible way keep nobody else out, and none
// stays.
func TestSlowClients(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	config, _ := testTLS(t)
	n := min(2500, (openFiles()-1000)/2)
	if raceEnabled {
		n = min(n, 1000)
	}
	if n < 500 {
		t.Skipf("%d files are too few", openFiles())
	}
	const timeout = 3 * time.Second
	// time closes them, not number
	slowly := func(l *limits) { l.handshakeTimeout, l.maxPending = timeout, 2*n }
	direct, proxied := serverWith(nil, slowly), serverWith(loopback(), slowly)
	hello := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) }
	directAddr, proxiedAddr := serveBehind(t, direct, config, hello), serveBehind(t, proxied, config, hello)
	record := string(helloBytes("a.test"))
	client := insecure()
	client.NextProtos = []string{"http/1.1"}

	const drips = 3 // one in so many that have something to drip sends a byte a second
	kinds := []func(i int) (conn net.Conn, drip string){
		func(int) (net.Conn, string) { return dialClient(t, directAddr), record },
		func(int) (net.Conn, string) { return dialClient(t, proxiedAddr), proxyV1 },
		func(int) (net.Conn, string) {
			return dialClient(t, proxiedAddr), "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
		},
		func(int) (net.Conn, string) { return dialClient(t, directAddr), "" },
		func(int) (net.Conn, string) { return dialClient(t, proxiedAddr), "" },
		func(int) (net.Conn, string) {
			conn := dialClient(t, directAddr)
			io.WriteString(conn, record[:len(record)/2])
			return conn, ""
		},
		func(int) (net.Conn, string) { // sends its hello, and does not go on
			conn := dialClient(t, directAddr)
			io.WriteString(conn, record)
			return conn, ""
		},
		func(i int) (net.Conn, string) {
			conn := dialClient(t, directAddr)
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
	for _, via := range []struct{ addr, header, want string }{{directAddr, "", "127.0.0.1:"}, {proxiedAddr, proxyV1, "203.0.113.7:4711"}} {
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
				_, body, err := ask(tls.Client(conn, client), true)
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
	if time.Duration(longest.Load()) > timeout+10*time.Second {
		t.Errorf("one stayed for %v", time.Duration(longest.Load()))
	}
	if left := pendingOf(direct.limiter) + pendingOf(proxied.limiter); left > 2 {
		t.Errorf("%d are still pending", left)
	}
}

// pendingOf returns how many connections are pending.
func pendingOf(l *limiter) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pending.Len()
}

// One more connection than may be pending closes the one that has been without progress for
// longest. Established connections do not count.
func TestPendingConnectionsAreBounded(t *testing.T) {
	config, _ := testTLS(t)
	s := serverWith(nil, func(l *limits) { l.maxPending = 3 })
	addr := serveBehind(t, s, config, func(w http.ResponseWriter, r *http.Request) {})
	established := tls.Client(dialClient(t, addr), insecure())
	if _, err := io.WriteString(established, "GET / HTTP/1.1\r\n"); err != nil {
		t.Fatal(err)
	}
	pending := func() int { return pendingOf(s.limiter) }
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
	until("a connection is established", func() bool { return pending() == 0 })
	asked := dialClient(t, addr) // sends its hello, which is progress, after the next one has come
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
	if _, err := io.WriteString(established, "Host: a.test\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := established.Read(make([]byte, 1)); err != nil {
		t.Errorf("an established connection: %v", err)
	}
	third.Close()
	until("a closed one is forgotten", func() bool { return pending() == 2 })
}

// A plain connection that sends nothing is closed in its time, and the oldest one when there are
// too many. One that has sent a byte may take its time.
func TestPlainConnectionsAreLimited(t *testing.T) {
	const request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
	answers := func(conn net.Conn, rest string) error {
		if _, err := io.WriteString(conn, rest); err != nil {
			return err
		}
		_, _, err := readAnswer(bufio.NewReader(conn))
		return err
	}
	handler := func(http.ResponseWriter, *http.Request) {}
	t.Run("time", func(t *testing.T) {
		s := serverWith(nil, func(l *limits) { l.handshakeTimeout = 100 * time.Millisecond })
		addr := serveBehind(t, s, nil, handler)
		slow, silent := dialClient(t, addr), dialClient(t, addr)
		io.WriteString(slow, request[:1])
		if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("a silent connection: %v, want its end", err)
		}
		if err := answers(slow, request[1:]); err != nil {
			t.Errorf("a slow one: %v", err)
		}
	})
	t.Run("number", func(t *testing.T) {
		addr := serveBehind(t, serverWith(nil, func(l *limits) { l.maxPending = 2 }), nil, handler)
		var conns []net.Conn
		for range 3 {
			conns = append(conns, dialClient(t, addr))
		}
		if _, err := conns[0].Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the oldest: %v, want its end", err)
		}
		if err := answers(conns[2], request); err != nil {
			t.Errorf("the newest: %v", err)
		}
	})
}

// Handshakes wait for a slot. None is held while a handshake waits for the client or for a
// certificate, and every slot comes back.
func TestHandshakesAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	config, _ := testTLS(t)
	s := serverWith(nil, func(l *limits) { l.slots, l.handshakeTimeout = 1, 20*time.Second })
	known, certificate := make(chan struct{}), config.GetCertificate
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if hello.ServerName == "slow.test" {
			Slots{}.Release(hello.Conn)
			<-known
		}
		return certificate(hello)
	}
	addr := serveBehind(t, s, config, func(w http.ResponseWriter, r *http.Request) {})
	handshake := func() error {
		conn := dialClient(t, addr)
		// less than the time after which the slow ones give up
		conn.SetDeadline(time.Now().Add(3 * time.Second))
		_, _, err := ask(tls.Client(conn, insecure()), true)
		return err
	}
	waiting := dialClient(t, addr) // sends its hello, and does not go on
	waiting.Write(helloBytes("a.test"))
	if _, err := waiting.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	dialClient(t, addr).Write(helloBytes("slow.test"))
	for range 10 { // the slow one is heard before the last of these
		if err := handshake(); err != nil {
			t.Fatalf("while others wait: %v", err)
		}
	}
	close(known)

	s.limiter.slots <- struct{}{} // another handshake is computed
	done := make(chan error)
	go func() { done <- handshake() }()
	gone := dialClient(t, addr)
	gone.Write(helloBytes("a.test"))
	select {
	case err := <-done:
		t.Fatalf("a handshake did not wait for a slot: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	<-s.limiter.slots
	if err := <-done; err != nil {
		t.Error(err)
	}
	gone.Close()
	for range 20 {
		if err := handshake(); err != nil {
			t.Fatal(err)
		}
	}
}

// A client that does not read is closed after a time, and one that reads slowly is not. Deadlines
// from above hold.
func TestWriteStall(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits
	listen := func(t *testing.T, stall time.Duration) (server *limitedConn, client *net.TCPConn) {
		ln := listenLoopback(t, "127.0.0.1:0")
		peer := dialClient(t, ln.Addr().String())
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		limited := limiterWith(func(l *limits) { l.stallTimeout = stall }).add(conn, &tls.Config{})
		t.Cleanup(func() { limited.tls.Close() })
		return limited, peer.(*net.TCPConn)
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
			t.Errorf("the connection was closed in order, and not reset: %v", err)
		}
	})
	// The kernel keeps little of what the client has not taken, so that room for a write is there
	// before the client has taken a third of the kernel's buffer, which may be a megabyte.
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

// No bytes break the chain, and from a peer that is no balancer none change the client's address.
func FuzzWrap(f *testing.F) {
	config, _ := testTLS(f)
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x07\xc0\x00\x02\x01\x12\x67\x01\xbb"
	ipv6 := strings.Replace(v2, "\x21\x11", "\x21\x31\x00\x10", 1)
	for _, seed := range []string{"", proxyV1, v2, v2[:14], v2 + proxyV1, "PROXY UNKNOWN\r\n", ipv6} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed+string(helloBytes("a.test"))), false)
	}
	listeners := map[bool]net.Listener{}
	for trusted, proxies := range map[bool][]netip.Prefix{true: loopback(), false: {netip.MustParsePrefix("192.0.2.0/24")}} {
		s := serverWith(proxies, func(l *limits) { l.handshakeTimeout = time.Second })
		listeners[trusted] = s.Wrap(listenLoopback(f, "127.0.0.1:0"), config)
	}
	hasHeader := func(input []byte) bool {
		return bytes.HasPrefix(input, []byte("PROXY ")) || bytes.HasPrefix(input, []byte("\r\n\r\n\x00\r\nQUIT\n"))
	}
	f.Fuzz(func(t *testing.T, input []byte, trusted bool) {
		client := dialClient(t, listeners[trusted].Addr().String())
		conn, err := listeners[trusted].Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		client.Write(input)
		client.(*net.TCPConn).CloseWrite()
		own, got := client.LocalAddr().String(), fmt.Sprint(conn.RemoteAddr())
		if !trusted && got != own {
			t.Errorf("RemoteAddr %s from a peer that is no balancer", got)
		}
		if n, err := io.Copy(io.Discard, conn); err == nil && n > 0 {
			t.Error("data without a handshake")
		}
		if trusted && !hasHeader(input) && got != own {
			t.Errorf("RemoteAddr %s without a header", got)
		}
	})
}
