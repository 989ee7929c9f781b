package frontend

import (
	"github.com/flotilla-ha/flotilla/internal/testlog"

	"bufio"
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
)

// After announce a response is the last of its connection, over HTTP/1.1 and HTTP/2, and new connections are taken.
func TestDrainerAnnounces(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[h2], func(t *testing.T) {
			g, cfg, roots := testTLS(t)
			tcp := listenLoopback(t, "127.0.0.1:0")
			srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
			d := NewDrainer(srv, testlog.None())
			served := make(chan error, 1)
			go func() { served <- srv.Serve(Wrap(g, tcp, nil, cfg)) }()

			transport := &http.Transport{ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "a.test"}}
			defer transport.CloseIdleConnections()
			get := func() (reused bool) {
				t.Helper()
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
				req, err := http.NewRequestWithContext(ctx, "GET", "https://"+tcp.Addr().String(), nil)
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
			// Over HTTP/2 the GOAWAY comes with the response or right after it, so that a request may slip between: the
			// server does not answer it, and the client repeats it on a new connection.
			for n := 0; get(); n++ {
				if n == 100 {
					t.Fatal("the connection is still in use")
				}
			}
			if err := d.End(t.Context(), tcp); err != nil {
				t.Error(err)
			}
			if err := <-served; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
			if d.busy() {
				t.Errorf("an answer is due after the end: %v", d.all)
			}
		})
	}
}

// A request that takes longer than there is time is cut off, and end says so.
func TestDrainerGivesUp(t *testing.T) {
	ln := listenLoopback(t, "127.0.0.1:0")
	begun, cut := make(chan struct{}), make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(cut)
	})}
	d := NewDrainer(srv, testlog.None())
	go srv.Serve(ln)
	asked := make(chan error, 1)
	go func() {
		_, err := http.Get("http://" + ln.Addr().String())
		asked <- err
	}()
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.End(ctx, ln); !errors.Is(err, context.Canceled) {
		t.Errorf("end: %v", err)
	}
	<-cut
	if err := <-asked; !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the request was answered, or not cut: %v", err)
	}
}

// A connection at rest gets one more answer, which says that it is the last: its client may have sent at the very moment that
// the server ends.
func TestDrainAnswersOnConnectionsAtRest(t *testing.T) {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "yes") })}
	d := NewDrainer(srv, testlog.None())
	ln := listenLoopback(t, "127.0.0.1:0")
	go srv.Serve(ln)
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	ask := func() *http.Response {
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp
	}
	ask()
	ended := make(chan error, 1)
	go func() { ended <- d.End(t.Context(), ln) }()
	select {
	case <-ln.resting: // the listener is drained: Shutdown would come next
	case err := <-ended: // where listeners cannot be drained
		t.Skipf("needs a system where listeners can be drained, as Linux: %v", err)
	}
	if resp := ask(); !resp.Close {
		t.Error("the answer does not say that it is the last")
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// An answer that began before the end cannot say that it is the last, so the connection gets another one even when it took long.
func TestDrainAnswersAfterALongAnswer(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			w.(http.Flusher).Flush()
			close(begun)
			<-release
		}
	})}
	d := NewDrainer(srv, testlog.None())
	ln := listenLoopback(t, "127.0.0.1:0")
	go srv.Serve(ln)
	conn := dialClient(t, ln.Addr().String())
	r := bufio.NewReader(conn)
	answer := func() *http.Response {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp
	}
	io.WriteString(conn, "GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
	<-begun
	ended := make(chan error, 1)
	go func() { ended <- d.End(t.Context(), ln) }()
	select {
	case err := <-ended:
		t.Errorf("the end, with a request under way: %v", err)
	case <-time.After(idleGrace + drainTimeout):
	}
	close(release)
	if resp := answer(); resp.Close {
		t.Fatal("this answer was to begin before the end")
	}
	<-time.After(50 * time.Millisecond)
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp := answer(); !resp.Close {
		t.Error("the answer does not say that it is the last")
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
