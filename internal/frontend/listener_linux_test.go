package frontend

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
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

	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// answering returns a server that answers every request with a name.
func answering(name string) *http.Server {
	return &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) })}
}

// askOnce sends the only request of conn and returns the answer's body.
func askOnce(conn net.Conn) (string, error) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, body, err := ask(conn, true)
	return body, err
}

// Of connections that the kernel has completed while nobody accepts, Close resets all, and after a
// drain all are served.
func TestDrainHandsOutTheAcceptQueue(t *testing.T) {
	const clients = 20
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		for _, drained := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/drained=%v", addr, drained), func(t *testing.T) {
				ln := listenLoopback(t, addr)
				var conns []net.Conn
				for range clients {
					conns = append(conns, dialClient(t, ln.Addr().String()))
				}
				if n, err := acceptQueue(ln.tcp); err != nil || n != clients {
					t.Fatalf("acceptQueue: %d, %v; want %d", n, err, clients)
				}
				served, ended := make(chan error, 1), make(chan error, 1)
				if drained {
					srv := answering("x")
					d := drainerOf(srv, ln)
					go func() { served <- srv.Serve(ln) }()
					go func() { ended <- d.drain(t.Context()) }()
					<-ln.resting // the clients send when nobody is accepting any more
				} else {
					ln.Close()
				}
				failed := 0
				for _, conn := range conns {
					if _, err := askOnce(conn); err != nil {
						failed++
					}
				}
				if want := map[bool]int{false: clients, true: 0}[drained]; failed != want {
					t.Errorf("%d of %d clients failed, want %d", failed, clients, want)
				}
				if drained {
					if err := <-ended; err != nil {
						t.Error(err)
					}
					if err := <-served; !errors.Is(err, http.ErrServerClosed) {
						t.Errorf("Serve: %v", err)
					}
				}
			})
		}
	}
}

// Where the process may attach no filter, a drain still hands out what the kernel has queued, says
// that it cannot promise more, and is no error. A locked filter is refused as a missing capability
// is (socket(7), SO_LOCK_FILTER).
func TestDrainWithoutFilter(t *testing.T) {
	const clients = 20
	ln := listenLoopback(t, "127.0.0.1:0")
	if err := control(ln.tcp, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1)
	}); err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for range clients {
		conns = append(conns, dialClient(t, ln.Addr().String()))
	}
	var said bytes.Buffer
	srv := answering("x")
	d := newDrainer(srv, ln, slog.New(slog.NewTextHandler(&said, nil)), silentTimeout, new(meter.Counter))
	served, ended := make(chan error, 1), make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	go func() { ended <- d.drain(t.Context()) }()
	<-ln.resting
	for _, conn := range conns {
		if body, err := askOnce(conn); err != nil || body != "x" {
			t.Errorf("a client of the queue got %q, %v", body, err)
		}
	}
	if err := <-ended; err != nil {
		t.Errorf("drain: %v", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
	if text := said.String(); !strings.Contains(text, "CAP_NET_ADMIN") || !strings.Contains(text, "operation not permitted") {
		t.Errorf("the log does not say what is missing:\n%s", text)
	}
}

// needsFilter skips a test where this process may attach no filter to a port.
func needsFilter(t *testing.T) {
	t.Helper()
	if err := dropSYN(listenLoopback(t, "127.0.0.1:0").tcp); errors.Is(err, os.ErrPermission) {
		t.Skipf("this kernel wants CAP_NET_ADMIN for a filter: %v", err)
	}
}

// A client that comes while the listener drains is refused when it repeats its SYN, so that a
// balancer goes on to another node.
func TestDrainRefusesNewClients(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits
	needsFilter(t)
	ln := listenLoopback(t, "127.0.0.1:0")
	if err := dropSYN(ln.tcp); err != nil {
		t.Fatal(err)
	}
	dialed := make(chan error, 1)
	go func() {
		_, err := net.Dial("tcp", ln.Addr().String())
		dialed <- err
	}()
	// The SYN is on its way once the client has a socket. Nothing shows that until it is repeated.
	// If the close comes first, the answer is the same.
	time.AfterFunc(50*time.Millisecond, func() { ln.Close() })
	if err := <-dialed; !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v, want connection refused", err)
	}
}

// listenDeferring returns a listener whose handshakes stay half open until the client sends.
func listenDeferring(t *testing.T) *Listener {
	t.Helper()
	ln := listenLoopback(t, "127.0.0.1:0")
	if err := control(ln.tcp, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30)
	}); err != nil {
		t.Fatal(err)
	}
	return ln
}

// A drain waits for a handshake that has begun.
func TestDrainWaitsForHandshakes(t *testing.T) {
	needsFilter(t)
	ln := listenDeferring(t)
	conn := dialClient(t, ln.Addr().String())
	if n, err := halfOpen(ln.tcp); err != nil || n != 1 {
		t.Fatalf("halfOpen: %d, %v; want 1", n, err)
	}
	srv := answering("x")
	go srv.Serve(ln)
	drained := make(chan error, 1)
	go func() { drained <- ln.drain(t.Context()) }()
	if body, err := askOnce(conn); err != nil || body != "x" {
		t.Errorf("answer %q, %v", body, err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if n, err := halfOpen(ln.tcp); err != nil || n != 0 {
		t.Errorf("halfOpen after drain: %d, %v; want 0", n, err)
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// A drain gives up a handshake that never ends, and nothing else is lost by that.
func TestDrainGivesUpHandshakes(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits
	needsFilter(t)
	ln := listenDeferring(t)
	dialClient(t, ln.Addr().String())
	srv := answering("x")
	go srv.Serve(ln)
	if err := ln.drain(t.Context()); err != nil {
		t.Error(err)
	}
	if n, err := halfOpen(ln.tcp); err != nil || n != 1 {
		t.Errorf("halfOpen: %d, %v; want 1", n, err)
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDrainWithoutAccept(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits
	ln := listenLoopback(t, "127.0.0.1:0")
	dialClient(t, ln.Addr().String())
	if err := ln.drain(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drain with nobody accepting: %v, want a deadline", err)
	}
	ln.Close()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}

func TestDropSYNRefusesMultipath(t *testing.T) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(true)
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	multipath := false
	if err := control(ln.(*net.TCPListener), func(fd int) error {
		proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		multipath = proto == unix.IPPROTO_MPTCP
		return err
	}); err != nil {
		t.Fatal(err)
	}
	err = dropSYN(ln.(*net.TCPListener))
	if !multipath && err != nil || multipath && (err == nil || !strings.Contains(err.Error(), "not a plain TCP socket")) {
		t.Errorf("multipath %v: dropSYN: %v", multipath, err)
	}
}

// A node behind a balancer without health checks is restarted again and again on one port, while
// clients connect as fast as they can. As the balancer does, a client that is not connected tries
// the other node. Once connected it expects an answer.
func TestRollingRestartUnderLoad(t *testing.T) {
	needsFilter(t)
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for _, drained := range []bool{false, true} {
		t.Run(fmt.Sprintf("drained=%v", drained), func(t *testing.T) {
			other := listenLoopback(t, "127.0.0.1:0")
			otherSrv := answering("other")
			go otherSrv.Serve(other)
			defer otherSrv.Close()
			ln := listenLoopback(t, "127.0.0.1:0")
			addr := ln.Addr().String()

			ctx, stop := context.WithCancel(t.Context())
			var asked, lost atomic.Int64
			var first atomic.Pointer[error]
			byNode := make(chan struct{}, 1<<16) // an answer of the node under test
			var clients sync.WaitGroup
			for range 16 {
				clients.Go(func() {
					for ctx.Err() == nil {
						conn, err := net.DialTimeout("tcp", addr, 20*time.Millisecond)
						if err != nil {
							if conn, err = net.DialTimeout("tcp", other.Addr().String(), 10*time.Second); err != nil {
								lost.Add(1)
								continue
							}
						}
						asked.Add(1)
						name, err := askOnce(conn)
						if err != nil {
							lost.Add(1)
							first.CompareAndSwap(nil, &err)
						}
						if name == "node" {
							select {
							case byNode <- struct{}{}:
							default:
							}
						}
					}
				})
			}
			for range rounds {
				srv := answering("node")
				d := drainerOf(srv, ln)
				served := make(chan error, 1)
				go func() { served <- srv.Serve(ln) }()
				for range 20 {
					<-byNode
				}
				end := srv.Shutdown
				if drained {
					end = func(ctx context.Context) error { return d.drain(ctx) }
				}
				if err := end(t.Context()); err != nil {
					t.Error(err)
				}
				<-served
				ln = listenLoopback(t, addr)
			}
			go func() { // clients that are in the queue of the last listener
				srv := answering("node")
				srv.Serve(ln)
			}()
			stop()
			clients.Wait()
			t.Logf("%d restarts, %d requests, %d lost", rounds, asked.Load(), lost.Load())
			if err := first.Load(); drained && lost.Load() > 0 {
				t.Errorf("%d requests lost: %v", lost.Load(), *err)
			}
		})
	}
}

// Through TLS, with and without a PROXY header, a drain loses neither a handshake that is under way
// nor the request after it, however slow the client is. An idle connection gets its last answer.
func TestDrainThroughTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits
	for _, header := range []string{"", proxyV1} {
		t.Run(fmt.Sprintf("proxied=%v", header != ""), func(t *testing.T) {
			t.Parallel()
			const silent = 4 * time.Second
			config, _ := testTLS(t)
			ln := listenLoopback(t, "127.0.0.1:0")
			srv := &http.Server{
				ErrorLog: log.New(io.Discard, "", 0),
				Handler:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "yes") }),
			}
			d := newDrainer(srv, ln, testlog.None(), silent, new(meter.Counter))
			var proxies []netip.Prefix
			if header != "" {
				proxies = loopback()
			}
			go srv.Serve(serverWith(proxies, unchanged).Wrap(ln, config))
			dial := func() net.Conn {
				conn := dialClient(t, ln.Addr().String())
				io.WriteString(conn, header)
				return conn
			}
			idle := tls.Client(dial(), insecure())
			if res, _, err := ask(idle, false); err != nil || res.Close {
				t.Fatalf("%+v, %v", res, err)
			}
			slow := &haltingConn{Conn: dial(), said: make(chan struct{}), resume: make(chan struct{})}
			answer := make(chan error, 1)
			<-time.After(silent - 3*time.Second/2) // it has been there for long when it sends something
			go func() {
				_, body, err := ask(tls.Client(slow, insecure()), true)
				if err == nil && body != "yes" {
					err = fmt.Errorf("answer %q", body)
				}
				answer <- err
			}()
			<-slow.said
			ended := make(chan error, 1)
			go func() { ended <- d.drain(t.Context()) }()
			<-ln.resting
			if res, _, err := ask(idle, false); err != nil || !res.Close {
				t.Errorf("on an idle connection: %+v, %v", res, err)
			}
			idle.Close()
			select {
			case err := <-ended:
				t.Errorf("the drain ends while a client is in its handshake: %v", err)
			case <-time.After(2 * idleGrace):
			}
			close(slow.resume)
			if err := <-answer; err != nil {
				t.Errorf("a client that was in its handshake: %v", err)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// haltingConn is of a client that waits between its hello and the end of its handshake.
type haltingConn struct {
	net.Conn
	writes       int
	said, resume chan struct{}
}

func (c *haltingConn) Write(b []byte) (int, error) {
	if c.writes++; c.writes == 1 {
		defer close(c.said)
	} else {
		<-c.resume
	}
	return c.Conn.Write(b)
}

// A socket that was lent is drained without a filter: who comes when nobody accepts any more waits
// for the next process, and is not kept out.
func TestDrainOfALentSocket(t *testing.T) {
	const clients = 20
	owner := listenLoopback(t, "127.0.0.1:0").tcp
	file, err := owner.File()
	if err != nil {
		t.Fatal(err)
	}
	lent, err := net.FileListener(file)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	ln := Lent(lent)
	if err := control(ln.tcp, func(fd int) error {
		n, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT)
		if n != maxUnsent {
			t.Errorf("its connections keep %d bytes unsent", n)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	var conns []net.Conn
	for range clients {
		conns = append(conns, dialClient(t, owner.Addr().String()))
	}
	srv := answering("x")
	d := drainerOf(srv, ln)
	served, ended := make(chan error, 1), make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	go func() { ended <- d.drain(t.Context()) }()
	<-ln.resting
	late, err := net.DialTimeout("tcp", owner.Addr().String(), 500*time.Millisecond)
	if err != nil {
		t.Fatalf("a client of the next process: %v", err)
	}
	defer late.Close()
	for _, conn := range conns {
		if body, err := askOnce(conn); err != nil || body != "x" {
			t.Errorf("a client of the queue got %q, %v", body, err)
		}
	}
	if err := <-ended; err != nil {
		t.Errorf("drain: %v", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
	owner.SetDeadline(time.Now().Add(5 * time.Second))
	conn, err := owner.Accept()
	if err != nil {
		t.Fatalf("the next process has no client: %v", err)
	}
	defer conn.Close()
	if conn.RemoteAddr().String() != late.LocalAddr().String() {
		t.Errorf("the next process has %v, want %v", conn.RemoteAddr(), late.LocalAddr())
	}
}
