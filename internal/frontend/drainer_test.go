package frontend

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// After announce each answer is the last of its connection, over HTTP/1.1 and HTTP/2, and new
// connections are accepted.
func TestDrainerAnnounces(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[h2], func(t *testing.T) {
			config, roots := testTLS(t)
			ln := listenLoopback(t, "127.0.0.1:0")
			srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
			d := drainerOf(srv, ln)
			served := make(chan error, 1)
			go func() { served <- srv.Serve(serverWith(nil, unchanged).Wrap(ln, config)) }()

			transport := &http.Transport{ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "a.test"}}
			defer transport.CloseIdleConnections()
			get := func() (reused bool) {
				t.Helper()
				trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
				req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", "https://"+ln.Addr().String(), nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				if res.ProtoMajor == 2 != h2 {
					t.Errorf("protocol %s", res.Proto)
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					t.Error(err)
				}
				res.Body.Close()
				return reused
			}
			if get() || !get() {
				t.Fatal("connections are not kept")
			}
			d.announce()
			get()
			// Over HTTP/2 the GOAWAY comes with the answer or right after it, so that a request may
			// slip in between. The server does not answer it, and the client repeats it on a new
			// connection.
			for n := 0; get(); n++ {
				if n == 100 {
					t.Fatal("the connection is still in use")
				}
			}
			if err := d.drain(t.Context()); err != nil {
				t.Error(err)
			}
			if err := <-served; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
			if d.busy() {
				t.Errorf("an answer is due after the drain: %v", d.conns)
			}
		})
	}
}

// A request that takes longer than there is time is cut, and the error says so.
// A socket in memory that can refuse is drained as one of the kernel: those who wait are answered,
// and others are refused.
func TestDrainOfASocketInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New()
		socket, err := network.Host("server").Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		held := &heldListener{Listener: socket, release: make(chan struct{})}
		ln := Lent(held)
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "answered") })}
		d := drainerOf(srv, ln)
		served := make(chan error, 1)
		go func() { served <- srv.Serve(ln) }()
		dial := func() (net.Conn, error) { return network.Host("client").Dial(t.Context(), "tcp", "server:80") }
		conn, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		drained := make(chan error, 1)
		go func() { drained <- d.drain(t.Context()) }()
		synctest.Wait()
		if late, err := dial(); !errors.Is(err, syscall.ECONNREFUSED) {
			if err == nil {
				late.Close()
			}
			t.Errorf("a client that comes later: %v", err)
		}
		close(held.release) // Accept goes on
		if res, body, err := ask(conn, false); err != nil || body != "answered" || !res.Close {
			t.Errorf("a client that waited: %q, %v", body, err)
		}
		if err := <-drained; err != nil {
			t.Errorf("drain: %v", err)
		}
		if err := <-served; err != http.ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
	})
}

// heldListener accepts nothing until release is closed.
type heldListener struct {
	net.Listener
	release chan struct{}
}

func (l *heldListener) Accept() (net.Conn, error) {
	<-l.release
	return l.Listener.Accept()
}

func (l *heldListener) Refuse() { l.Listener.(refuser).Refuse() }

func TestDrainerGivesUp(t *testing.T) {
	ln := listenLoopback(t, "127.0.0.1:0")
	begun, cut := make(chan struct{}), make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(cut)
	})}
	d := drainerOf(srv, ln)
	go srv.Serve(ln)
	asked := make(chan error, 1)
	go func() {
		_, err := http.Get("http://" + ln.Addr().String())
		asked <- err
	}()
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.drain(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("drain: %v", err)
	}
	<-cut
	if err := <-asked; !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the request was answered, or not cut: %v", err)
	}
}

// An idle connection gets one more answer, which says that it is the last: its client may be
// sending at the moment when the drain begins.
func TestDrainAnswersOnIdleConnections(t *testing.T) {
	srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	ln := listenLoopback(t, "127.0.0.1:0")
	d := drainerOf(srv, ln)
	go srv.Serve(ln)
	conn := dialClient(t, ln.Addr().String())
	if _, _, err := ask(conn, false); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.drain(t.Context()) }()
	select {
	case <-ln.resting: // the listener is drained: Shutdown would come next
	case err := <-ended: // where listeners cannot be drained
		t.Skipf("needs a system where listeners can be drained, as Linux: %v", err)
	}
	if res, _, err := ask(conn, false); err != nil || !res.Close {
		t.Errorf("the answer does not say that it is the last: %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// An answer that began before the drain cannot say that it is the last. So its connection gets
// another answer, even if the first took long.
func TestDrainAnswersAfterALongAnswer(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits
	begun, release := make(chan struct{}), make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		default:
			w.(http.Flusher).Flush()
			close(begun)
			<-release
		}
	})}
	ln := listenLoopback(t, "127.0.0.1:0")
	d := drainerOf(srv, ln)
	go srv.Serve(ln)
	conn := dialClient(t, ln.Addr().String())
	type answer struct {
		last bool
		err  error
	}
	long := make(chan answer, 1)
	go func() {
		res, _, err := ask(conn, false)
		long <- answer{err == nil && res.Close, err}
	}()
	<-begun
	ended := make(chan error, 1)
	go func() { ended <- d.drain(t.Context()) }()
	select {
	case err := <-ended:
		t.Errorf("the drain ends with a request under way: %v", err)
	case <-time.After(idleGrace + drainTimeout):
	}
	close(release)
	if got := <-long; got.err != nil || got.last {
		t.Fatalf("this answer was to begin before the drain: %+v", got)
	}
	<-time.After(50 * time.Millisecond)
	if res, _, err := ask(conn, false); err != nil || !res.Close {
		t.Errorf("the answer does not say that it is the last: %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
