package main

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// fault answers a request instead of the server, and returns true. Otherwise it returns false.
type fault func(w http.ResponseWriter, r *http.Request) bool

// front is a proxy with TLS before the S3 server. It fails when it is told to.
type front struct {
	*httptest.Server
	pass    http.Handler
	closing chan struct{} // closed when the test ends

	mu    sync.Mutex
	fault fault // nil: all is well
}

func newFront(t *testing.T) *front {
	t.Helper()
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	f := &front{closing: make(chan struct{})}
	transport := &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dialGateway(ctx) },
		DisableCompression: true,
	}
	f.pass = &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "gateway"})
			r.Out.Host = r.In.Host // it is signed
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	f.Server = httptest.NewUnstartedServer(f)
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	f.StartTLS()
	t.Cleanup(func() {
		close(f.closing)
		f.CloseClientConnections()
		f.Close()
		transport.CloseIdleConnections()
	})
	return f
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	fault := f.fault
	f.mu.Unlock()
	if fault == nil || !fault(w, r) {
		f.pass.ServeHTTP(w, r)
	}
}

// set makes the front fail like that; nil: not at all.
func (f *front) set(to fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = to
}

// on limits a fault to requests of a method, empty for all, whose URL has a part.
func on(method, part string, then fault) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		return (method == "" || r.Method == method) && strings.Contains(r.URL.String(), part) && then(w, r)
	}
}

// times limits a fault to the first requests that it would answer.
func times(n int, then fault) fault {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if n == 0 || !then(w, r) {
			return false
		}
		n--
		return true
	}
}

// answer answers with an error, as S3 does.
func answer(status int, code, message string) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		io.WriteString(w, "<Error><Code>"+code+"</Code><Message>"+message+"</Message></Error>")
		return true
	}
}

// cutRequest reads a part of the request and cuts the connection.
func cutRequest(w http.ResponseWriter, r *http.Request) bool {
	io.CopyN(io.Discard, r.Body, 1<<20)
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	conn.Close()
	return true
}

// hang reads nothing and answers nothing, until the test ends.
func (f *front) hang(_ http.ResponseWriter, _ *http.Request) bool {
	<-f.closing
	panic(http.ErrAbortHandler)
}

// half passes on the first half of what the server answers, and then calls then. Nil: the answer
// says that it is so short.
func (f *front) half(then func()) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		f.pass.ServeHTTP(&halfWriter{ResponseWriter: w, then: then}, r)
		return true
	}
}

// halfWriter passes on the first half of an answer.
type halfWriter struct {
	http.ResponseWriter
	then func()
	left int
}

// WriteHeader implements http.ResponseWriter.
func (w *halfWriter) WriteHeader(status int) {
	length, err := strconv.Atoi(w.Header().Get("Content-Length"))
	if err != nil {
		panic(err) // the server always says how long it is
	}
	w.left = length / 2
	if w.then == nil {
		w.Header().Set("Content-Length", strconv.Itoa(w.left))
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *halfWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	w.left -= n
	if _, err := w.ResponseWriter.Write(p[:n]); err != nil {
		return 0, err
	}
	if w.left == 0 && w.then != nil {
		http.NewResponseController(w.ResponseWriter).Flush()
		w.then()
	}
	return len(p), nil
}
