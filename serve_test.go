package flotilla

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/freeport"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// freeAddrs are loopback addresses that were free a moment ago.
func freeAddrs(t testing.TB, n int) []string {
	t.Helper()
	addrs, err := freeport.Addrs(n)
	if err != nil {
		t.Fatal(err)
	}
	return addrs
}

func freeAddr(t testing.TB) string { return freeAddrs(t, 1)[0] }

// A whole development server: HTTPS with a certificate, the redirect, health, and an end that
// answers the requests under way.
func TestServe(t *testing.T) {
	SkipShort(t)
	t.Parallel() // it waits
	addrs := freeAddrs(t, 3)
	cfg := Config{HTTPSAddr: addrs[0], HTTPAddr: addrs[1], HealthAddr: addrs[2], Name: "dev"}
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	under, release := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(under)
			<-release
		}
		fmt.Fprint(w, r.Proto)
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	served := make(chan error, 1)
	go func() { served <- n.Serve(ctx, h) }()

	roots := x509.NewCertPool()
	client := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	get := func(url string) (int, string, error) {
		resp, err := client.Get(url)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for s := range n.Watch(t.Context()) {
		if len(s.Certificates) > 0 && s.Certificates[0].Serial != "" {
			break
		}
	}
	root, err := (&devca.Issuer{Storage: n.storage}).Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(root)
	if code, body, err := get("https://" + cfg.HTTPSAddr); err != nil || code != 200 || body != "HTTP/2.0" {
		t.Errorf("https: %d %q %v", code, body, err)
	}
	if code, _, err := get("http://" + cfg.HTTPAddr + "/x"); err != nil || code != http.StatusPermanentRedirect {
		t.Errorf("http: %d %v, want a redirect", code, err)
	}
	if code, body, err := get("http://" + cfg.HealthAddr + "/readyz"); err != nil || code != 200 {
		t.Errorf("readyz: %d %q %v", code, body, err)
	}
	var status Status
	if _, body, err := get("http://" + cfg.HealthAddr + "/status"); err != nil || json.Unmarshal([]byte(body), &status) != nil || status.Name != "dev" || !status.Ready {
		t.Errorf("status: %q %v", body, err)
	}

	slow := make(chan error, 1)
	go func() {
		_, body, err := get("https://" + cfg.HTTPSAddr + "/slow")
		if err == nil && body != "HTTP/2.0" {
			err = fmt.Errorf("body %q", body)
		}
		slow <- err
	}()
	<-under
	stop()
	for s := range n.Watch(t.Context()) {
		if s.Draining {
			break
		}
	}
	close(release)
	if err := <-slow; err != nil {
		t.Errorf("a request under way: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve returns %v", err)
	}
}

func TestServeErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, cfg := range map[string]Config{
		"address in use":                     {HTTPSAddr: taken.Addr().String(), HTTPAddr: "127.0.0.1:0"},
		"development mode for all the world": {HTTPSAddr: "0.0.0.0:0", HTTPAddr: "127.0.0.1:0"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Serve(t.Context(), cfg, nil)
			var ce *ConfigError
			if !errors.As(err, &ce) || ce.Field != "HTTPSAddr" {
				t.Errorf("%v, want a ConfigError of HTTPSAddr", err)
			}
		})
	}
	t.Run("no domain", func(t *testing.T) {
		cfg := Config{Secrets: []Secret{NewSecret()}, Addr: "127.0.0.1:0"}
		if err := Serve(t.Context(), cfg, nil); err == nil || !strings.Contains(err.Error(), "name at least one domain") {
			t.Errorf("a server without a domain: %v", err)
		}
	})
}

// A node that shuts down is not ready from the first moment on. A failed node is live and not
// ready.
func TestHealth(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		code := func(n *Node, path string) int {
			w := &recorder{header: http.Header{}}
			r, err := http.NewRequest("GET", path, nil)
			if err != nil {
				t.Fatal(err)
			}
			n.Health().ServeHTTP(w, r)
			return w.code
		}
		if code(nodes[0], "/livez") != 200 || code(nodes[0], "/readyz") != 200 {
			t.Error("a ready node says it is not")
		}
		nodes[0].life.Leaving.Store(true)
		if code(nodes[0], "/livez") != 200 || code(nodes[0], "/readyz") != 503 {
			t.Error("a node on its way out is not live, or ready")
		}
		nodes[1].replica.Fail(io.ErrUnexpectedEOF)
		if code(nodes[1], "/livez") != 200 || code(nodes[1], "/readyz") != 503 {
			t.Error("a failed node is not live, or ready")
		}
		nodes[1].Close()
		if code(nodes[1], "/livez") != 503 {
			t.Error("a closed node is live")
		}
	})
}

type recorder struct {
	header http.Header
	code   int
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(c int)   { r.code = c }
func (r *recorder) Write(b []byte) (int, error) {
	if r.code == 0 {
		r.code = 200
	}
	return len(b), nil
}
