package flotilla

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Handlers find their node in the context of a request, beside what the user's hooks put there.
func TestNodeFrom(t *testing.T) {
	SkipShort(t)
	type key struct{}
	var mu sync.Mutex
	seen := make(map[string]bool) // by protocol: the node and the value of the user were there
	var s *serving
	srv := &http.Server{
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			seen[r.Proto] = NodeFrom(r.Context()) == s.Node && r.Context().Value(key{}) == "base"
		}),
		BaseContext: func(net.Listener) context.Context { return context.WithValue(context.Background(), key{}, "base") },
	}
	s = serveReal(t, Config{Server: srv}, nil)
	for _, h2 := range []bool{false, true} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: s.tls(), ForceAttemptHTTP2: h2, DisableKeepAlives: true}}
		resp, err := client.Get("https://127.0.0.1:" + s.port)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(map[string]bool{"HTTP/1.1": true, "HTTP/2.0": true}, seen); diff != "" {
		t.Error(diff)
	}
}

// It is the only way to the node of the function Serve.
func TestNodeFromServe(t *testing.T) {
	SkipShort(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{HTTPAddr: freeAddr(t), Name: "dev", Listen: func(_, addr string) (net.Listener, error) {
		if addr == "127.0.0.1:8443" {
			return ln, nil
		}
		return nil, nil
	}}
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, cfg, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, NodeFrom(r.Context()).Status().Name)
		}))
	}()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{ServerName: "localhost", InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("https://" + ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var name string
	if _, err := fmt.Fscan(resp.Body, &name); err != nil || name != "dev" {
		t.Errorf("the node is %q: %v", name, err)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// There is no node in any other context.
func TestNodeFromElsewhere(t *testing.T) {
	for name, ctx := range map[string]context.Context{
		"no request":       t.Context(),
		"another server's": httptest.NewRequest("GET", "/", nil).Context(),
	} {
		if n := NodeFrom(ctx); n != nil {
			t.Errorf("%s: %v", name, n.Status().Name)
		}
	}
}
