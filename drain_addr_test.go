package flotilla

import (
	"github.com/flotilla-ha/flotilla/internal/frontend"
	"github.com/flotilla-ha/flotilla/internal/testlog"

	"bufio"
	"context"
	"crypto/tls"
	"errors"
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

var (
	errStays = errors.New("the connection is open")

	stays, leaves = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
)

// closedSoon returns an error unless the other side closes conn.
func closedSoon(conn net.Conn) error {
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := io.Copy(io.Discard, conn)
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		return errStays
	}
	return nil
}

// client returns an HTTP client with connections to one address, which shows a PROXY header if there are to be some.
func (s *serving) client(t *testing.T, addr netip.Addr, h2 bool) *http.Client {
	t.Helper()
	transport := &http.Transport{
		ForceAttemptHTTP2: h2,
		TLSClientConfig:   s.tls(),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return s.dial(ctx, addr)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// dial connects to one address.
func (s *serving) dial(ctx context.Context, addr netip.Addr) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), s.port))
	if err == nil && len(s.cfg.Proxies) > 0 {
		_, err = io.WriteString(conn, "PROXY TCP4 192.0.2.1 127.0.0.1 4000 443\r\n")
	}
	return conn, err
}

// get asks for a path, and reports whether on a connection that had been used before, and whether the answer is its last.
func get(t *testing.T, c *http.Client, path string) (reused, last bool, err error) {
	t.Helper()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
	req, err := http.NewRequestWithContext(ctx, "POST", "https://app.test"+path, strings.NewReader("x"))
	if err != nil {
		return false, false, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return reused, false, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return reused, resp.Close, err
}

// https returns the listener that clients use.
func (s *serving) https() *frontend.Listener { return s.fronts.List()[0].Ln }

// awaitLeaving waits until the clients of an address are told to go.
func (s *serving) awaitLeaving(addr netip.Addr) {
	for {
		s.https().Mu.Lock()
		going := s.https().Going[addr]
		s.https().Mu.Unlock()
		if going > 0 {
			return
		}
		<-time.After(time.Millisecond)
	}
}

// The clients of one address go, with their answers, and those of another notice nothing.
func TestDrainAddr(t *testing.T) {
	for _, proxied := range []bool{false, true} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("proxied=%v/HTTP2=%v", proxied, h2), func(t *testing.T) {
				under, release := make(chan struct{}), make(chan struct{})
				var cfg Config
				if proxied {
					cfg.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
				}
				s := serveReal(t, cfg, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/slow" {
						under <- struct{}{}
						<-release
					}
				}))
				here, there, slow := s.client(t, stays, h2), s.client(t, leaves, h2), s.client(t, leaves, h2)
				for _, c := range []*http.Client{here, there, slow} {
					if _, _, err := get(t, c, "/"); err != nil {
						t.Fatal(err)
					}
				}
				others := s.https().Clients(stays)
				if err := s.DrainAddr(t.Context(), netip.MustParseAddr("127.0.0.3")); err != nil || len(others) != 1 {
					t.Fatalf("an address without clients: %v; %d elsewhere", err, len(others))
				}
				slowly, drained := make(chan error, 1), make(chan error, 1)
				go func() {
					_, _, err := get(t, slow, "/slow")
					slowly <- err
				}()
				<-under
				existing := s.https().Clients(leaves)
				go func() { drained <- s.DrainAddr(t.Context(), netip.AddrFrom16(leaves.As16())) }()
				s.awaitLeaving(leaves)
				reused, last, err := get(t, there, "/")
				if err != nil || !reused || last != !h2 {
					t.Errorf("a connection at rest: reused %v, last %v, %v", reused, last, err)
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
				case err := <-drained:
					t.Fatalf("a request is under way: %v", err)
				case release <- struct{}{}:
				}
				if err := <-slowly; err != nil {
					t.Errorf("a request under way: %v", err)
				}
				if err := <-drained; err != nil {
					t.Error(err)
				}
				if len(existing) != 2 {
					t.Errorf("%d connections, want 2", len(existing))
				}
				for _, c := range existing {
					if !c.Closed.Load() {
						t.Errorf("a connection from %v is left", c.TCPConn.RemoteAddr())
					}
				}
				for _, c := range others {
					if c.Closed.Load() || c.Leaving.Load() {
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

// Whatever a connection is doing, it is closed: those that nobody waits for after a second, the others when time is up.
func TestDrainAddrClosesAll(t *testing.T) {
	for _, hurry := range []bool{false, true} {
		t.Run(fmt.Sprintf("hurry=%v", hurry), func(t *testing.T) {
			under, cut := make(chan struct{}, 1), make(chan struct{})
			s := serveReal(t, Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
					close(cut)
				}
			}))
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
			say := func(name, request string) {
				t.Helper()
				conn := tls.Client(open(name), s.tls())
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
			say("at rest", "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			say("hijacked", "GET /hijack HTTP/1.1\r\nHost: a\r\n\r\n")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if hurry {
				say("no request", "")
				say("endless", "GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
				<-under
				open("no handshake")
				cancel()
			}
			err := s.DrainAddr(ctx, leaves)
			if hurry {
				if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "127.0.0.2: 1 requests were cut") {
					t.Errorf("%v, want one request cut", err)
				}
				<-cut
			} else if err != nil {
				t.Error(err)
			}
			if left := s.https().Clients(leaves); len(left) > 0 {
				t.Errorf("%d connections are left", len(left))
			}
			for name, conn := range conns {
				if err := closedSoon(conn); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	if err := new(Node).DrainAddr(t.Context(), netip.Addr{}); err == nil || !strings.Contains(err.Error(), "the address is not valid") {
		t.Errorf("no address is an address: %v", err)
	}
}

// Connections that the kernel has completed and nobody has accepted belong to the address as well, and get one answer.
func TestDrainAddrTakesTheAcceptQueue(t *testing.T) {
	ln := listenLoopback(t, "127.0.0.1:0")
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})}
	d := frontend.NewDrainer(srv, testlog.None())
	var conns []net.Conn
	for range 20 {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	left := make(chan int, 1)
	go func() { left <- d.Leave(t.Context(), stays, ln) }()
	for asked := uint64(0); asked == 0; {
		ln.Mu.Lock()
		asked = ln.Asked
		ln.Mu.Unlock()
	}
	go srv.Serve(ln)
	defer srv.Close()
	for _, conn := range conns {
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || !resp.Close {
			t.Fatalf("not the last answer: %v", err)
		}
	}
	if cut := <-left; cut != 0 || len(ln.Clients(stays)) != 0 {
		t.Errorf("%d cut, %d left", cut, len(ln.Clients(stays)))
	}
	// The listener goes on, and can still be drained.
	resp, err := http.Get("http://" + ln.Addr().String())
	if err != nil || resp.Close {
		t.Fatalf("a new client: %v", err)
	}
	resp.Body.Close()
	if err := d.End(t.Context(), ln); err != nil {
		t.Error(err)
	}
}
