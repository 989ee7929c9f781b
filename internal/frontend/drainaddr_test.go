package frontend

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// addresses returns a local address that stays, and one that leaves.
func addresses() (stays, leaves netip.Addr) {
	return netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
}

// serving is a Server with one port for HTTPS, on every address of this machine.
type serving struct {
	*Server
	ln    *Listener
	port  *Port
	roots *x509.CertPool
}

// serveHTTPS serves h until the test ends.
func serveHTTPS(t *testing.T, proxies []netip.Prefix, h http.Handler) *serving {
	t.Helper()
	config, roots := testTLS(t)
	s := &serving{Server: serverWith(proxies, unchanged), ln: listenLoopback(t, "0.0.0.0:0"), roots: roots}
	p, err := s.HTTPS(s.ln, HTTPS{Handler: h, TLS: config})
	if err != nil {
		t.Fatal(err)
	}
	s.port = p
	done := make(chan struct{})
	go func() { defer close(done); p.Serve() }()
	t.Cleanup(func() { p.Close(); <-done })
	return s
}

// client returns an HTTP client that connects to one address, with a PROXY header if one is
// required.
func (s *serving) client(t *testing.T, addr netip.Addr, h2 bool) *http.Client {
	t.Helper()
	transport := &http.Transport{
		ForceAttemptHTTP2: h2,
		TLSClientConfig:   &tls.Config{RootCAs: s.roots, ServerName: "a.test"},
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dial(ctx, addr) },
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// dial connects to one address.
func (s *serving) dial(ctx context.Context, addr netip.Addr) (net.Conn, error) {
	_, port, _ := net.SplitHostPort(s.ln.Addr().String())
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), port))
	if err == nil && len(s.proxies) > 0 {
		_, err = io.WriteString(conn, proxyV1)
	}
	return conn, err
}

// get asks for a path. It reports whether it used a connection again, and whether the answer is the
// last on it.
func get(t *testing.T, c *http.Client, path string) (reused, last bool, err error) {
	t.Helper()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
	req, err := http.NewRequestWithContext(ctx, "POST", "https://a.test"+path, strings.NewReader("x"))
	if err != nil {
		return false, false, err
	}
	res, err := c.Do(req)
	if err != nil {
		return reused, false, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return reused, res.Close, err
}

// awaitLocked waits until ok is true of the listener, whose mutex is held during the call.
func awaitLocked(t *testing.T, ln *Listener, ok func() bool) {
	t.Helper()
	await(t, func() bool {
		ln.mu.Lock()
		defer ln.mu.Unlock()
		return ok()
	})
}

func await(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !done(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}

// The clients of one address leave, with their answers, and those of another notice nothing.
func TestDrainAddr(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits
	for _, proxied := range []bool{false, true} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("proxied=%v/HTTP2=%v", proxied, h2), func(t *testing.T) {
				t.Parallel()
				under, release := make(chan struct{}), make(chan struct{})
				var proxies []netip.Prefix
				if proxied {
					proxies = loopback()
				}
				s := serveHTTPS(t, proxies, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/slow" {
						under <- struct{}{}
						<-release
					}
				}))
				stays, leaves := addresses()
				here, there, slow := s.client(t, stays, h2), s.client(t, leaves, h2), s.client(t, leaves, h2)
				for _, c := range []*http.Client{here, there, slow} {
					if _, _, err := get(t, c, "/"); err != nil {
						t.Fatal(err)
					}
				}
				others := s.ln.clients(stays)
				if cut := s.DrainAddr(t.Context(), netip.MustParseAddr("127.0.0.3")); cut != 0 || len(others) != 1 {
					t.Fatalf("an address without clients: %d cut; %d elsewhere", cut, len(others))
				}
				slowly, drained := make(chan error, 1), make(chan int, 1)
				go func() {
					_, _, err := get(t, slow, "/slow")
					slowly <- err
				}()
				<-under
				existing := s.ln.clients(leaves)
				go func() { drained <- s.DrainAddr(t.Context(), netip.AddrFrom16(leaves.As16())) }()
				awaitLocked(t, s.ln, func() bool { return s.ln.leaving[leaves] > 0 })
				reused, last, err := get(t, there, "/")
				if err != nil || !reused || last != !h2 {
					t.Errorf("an idle connection: reused %v, last %v, %v", reused, last, err)
				}
				// Over HTTP/2 GOAWAY may be a moment behind the answer.
				for n := 0; reused; n++ {
					if reused, _, err = get(t, there, "/"); err != nil || n == 100 {
						t.Fatalf("the connection is still in use: %v", err)
					}
				}
				if reused, last, err := get(t, here, "/"); err != nil || !reused || last {
					t.Errorf("another address: reused %v, last %v, %v", reused, last, err)
				}
				select {
				case <-drained:
					t.Fatal("DrainAddr returns while a request is under way")
				case release <- struct{}{}:
				}
				if err := <-slowly; err != nil {
					t.Errorf("a request under way: %v", err)
				}
				if cut := <-drained; cut != 0 {
					t.Errorf("%d requests were cut", cut)
				}
				if len(existing) != 2 {
					t.Errorf("%d connections, want 2", len(existing))
				}
				for _, c := range existing {
					if !c.closed.Load() {
						t.Errorf("a connection from %v is left", c.RemoteAddr())
					}
				}
				for _, c := range others {
					if c.closed.Load() || c.leaving.Load() {
						t.Error("a connection to another address is gone")
					}
				}
				if reused, _, err := get(t, here, "/"); err != nil || !reused {
					t.Errorf("another address, afterwards: reused %v, %v", reused, err)
				}
				// The address may come back.
				for range 2 {
					if reused, last, err = get(t, s.client(t, leaves, h2), "/"); err != nil || reused || last {
						t.Errorf("the address, afterwards: reused %v, last %v, %v", reused, last, err)
					}
				}
			})
		}
	}
}

// Every connection is closed, whatever it is doing: after a second if no answer is due, the others
// when time is up.
func TestDrainAddrClosesAll(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits
	for _, hurry := range []bool{false, true} {
		t.Run(fmt.Sprintf("hurry=%v", hurry), func(t *testing.T) {
			under, wasCut := make(chan struct{}, 1), make(chan struct{})
			s := serveHTTPS(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/hijack":
					conn, _, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
				case "/endless":
					under <- struct{}{}
					<-r.Context().Done()
					close(wasCut)
				}
			}))
			_, leaves := addresses()
			conns := map[string]net.Conn{}
			open := func(name string) net.Conn {
				t.Helper()
				conn, err := s.dial(t.Context(), leaves)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				conns[name] = conn
				return conn
			}
			send := func(name, request string) {
				t.Helper()
				conn := tls.Client(open(name), insecure())
				if _, err := io.WriteString(conn, request); err != nil {
					t.Fatal(err)
				}
				if request != "" && name != "endless" {
					if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
						t.Fatal(err)
					}
				} else if err := conn.Handshake(); err != nil {
					t.Fatal(err)
				}
			}
			send("idle", "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			send("hijacked", "GET /hijack HTTP/1.1\r\nHost: a\r\n\r\n")
			// A client may have its answer before the server knows that it has sent all of it.
			await(t, func() bool { return !s.port.drainer.busy() })
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if hurry {
				send("no request", "")
				send("endless", "GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
				<-under
				open("no handshake")
				cancel()
			}
			cut := s.DrainAddr(ctx, leaves)
			if want := map[bool]int{true: 1}[hurry]; cut != want {
				t.Errorf("%d requests were cut, want %d", cut, want)
			}
			if hurry {
				<-wasCut
			}
			if left := s.ln.clients(leaves); len(left) > 0 {
				t.Errorf("%d connections are left", len(left))
			}
			for name, conn := range conns {
				if err := isClosedSoon(conn); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

// Connections that the kernel has completed and nobody has accepted belong to the address too, and
// get one answer.
func TestDrainAddrTakesTheAcceptQueue(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits
	ln := listenLoopback(t, "127.0.0.1:0")
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})}
	d := drainerOf(srv, ln)
	stays, _ := addresses()
	var conns []net.Conn
	for range 20 {
		conns = append(conns, dialClient(t, ln.Addr().String()))
	}
	left := make(chan int, 1)
	go func() { left <- d.drainAddr(t.Context(), stays) }()
	awaitLocked(t, ln, func() bool { return ln.asked > 0 })
	go srv.Serve(ln)
	defer srv.Close()
	for _, conn := range conns {
		if res, _, err := ask(conn, false); err != nil || !res.Close {
			t.Fatalf("not the last answer: %v", err)
		}
	}
	if cut := <-left; cut != 0 || len(ln.clients(stays)) != 0 {
		t.Errorf("%d cut, %d left", cut, len(ln.clients(stays)))
	}
	// The listener goes on, and can still be drained.
	resp, err := http.Get("http://" + ln.Addr().String())
	if err != nil || resp.Close {
		t.Fatalf("a new client: %v", err)
	}
	resp.Body.Close()
	if err := d.drain(t.Context()); err != nil {
		t.Error(err)
	}
}
