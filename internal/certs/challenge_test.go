package certs

import (
	"crypto/tls"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/caddyserver/certmagic"
	"github.com/google/go-cmp/cmp"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
)

const testCA = "https://127.0.0.1:1/dir" // refuses connections, should anything be ordered there

// acmeCerts returns certificates of an ACME CA that cannot be reached.
func acmeCerts(t testing.TB, storage certmagic.Storage, configure func(*certmagic.Config, *certmagic.ACMEIssuer), with ...func(*Config)) *Certs {
	t.Helper()
	c, err := openCerts(Policy{CA: testCA, Configure: configure}, storage, false, always, nil, append([]func(*Config){func(c *Config) {
		c.Lookup = stubca.Lookup
	}}, with...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestHTTPHandler(t *testing.T) {
	storage := newMemStorage()
	c := acmeCerts(t, storage, nil)
	chal := stubca.StoreToken(t, storage, c.Issuers()[0], acme.ChallengeTypeHTTP01, "a.test")
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "app") })
	dev := devCerts(t, storage, nil)
	old := acmeCerts(t, storage, nil, func(c *Config) { c.RedirectStatus = http.StatusMovedPermanently })

	type answer struct {
		Status   int
		Body     string
		Location string
	}
	challenge := chal.HTTP01ResourcePath()
	for _, tc := range []struct {
		name, method, host, path string
		handler                  http.Handler
		want                     answer
	}{
		{"token of another node", "GET", "a.test", challenge, c.HTTPHandler(app), answer{200, chal.KeyAuthorization, ""}},
		{"token, host with port", "GET", "A.test:8080", challenge, c.HTTPHandler(nil), answer{200, chal.KeyAuthorization, ""}},
		{"another host", "GET", "b.test", challenge, c.HTTPHandler(app), answer{200, "app", ""}},
		{"another token", "GET", "a.test", "/.well-known/acme-challenge/x", c.HTTPHandler(app), answer{200, "app", ""}},
		{"other path", "GET", "a.test", "/x", c.HTTPHandler(app), answer{200, "app", ""}},
		{"development", "GET", "a.test", challenge, dev.HTTPHandler(app), answer{200, "app", ""}},
		{"redirect", "GET", "a.test:80", "/x?y=%2f", c.HTTPHandler(nil), answer{308, "", "https://a.test/x?y=%2f"}},
		{"redirect of a POST", "POST", "a.test", "/", c.HTTPHandler(nil), answer{308, "", "https://a.test/"}},
		{"redirect of IPv6", "HEAD", "[2001:db8::1]:80", "/", c.HTTPHandler(nil), answer{308, "", "https://[2001:db8::1]/"}},
		{"redirect of IPv6 without port", "HEAD", "[2001:db8::1]", "/", c.HTTPHandler(nil), answer{308, "", "https://[2001:db8::1]/"}},
		{"redirect for old clients", "POST", "a.test", "/x", old.HTTPHandler(nil), answer{301, "", "https://a.test/x"}},
		{"no host", "HEAD", "", "/", c.HTTPHandler(nil), answer{400, "", ""}},
		{"evil host", "HEAD", "a.test/@b.test", "/", c.HTTPHandler(nil), answer{400, "", ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest(tc.method, tc.path, nil)
			r.Host = tc.host
			w := httptest.NewRecorder()
			tc.handler.ServeHTTP(w, r)
			got := answer{Status: w.Code, Body: w.Body.String(), Location: w.Header().Get("Location")}
			if tc.want.Status >= 300 {
				got.Body = ""
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}

	t.Run("development redirects to its own port", func(t *testing.T) {
		addr := serveTLS(t, dev, app)
		_, port, _ := net.SplitHostPort(addr)
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		dev.ServedAt(number)
		r := httptest.NewRequest("GET", "http://localhost:8080/", nil)
		w := httptest.NewRecorder()
		dev.HTTPHandler(nil).ServeHTTP(w, r)
		if got, want := w.Header().Get("Location"), "https://localhost:"+port+"/"; got != want {
			t.Errorf("Location %q, want %q", got, want)
		}
	})
}

// A node that did not place the order shows the certificate that proves control of a name (RFC
// 8737).
func TestTLSALPNChallengeOfAnotherNode(t *testing.T) {
	storage := newMemStorage()
	c := acmeCerts(t, storage, nil)
	addr := serveTLS(t, c, http.NotFoundHandler())
	chal := stubca.StoreToken(t, storage, c.Issuers()[0], acme.ChallengeTypeTLSALPN01, "alpn.test")
	want, err := acmez.TLSALPN01ChallengeCert(chal)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(name string) (*tls.Conn, error) {
		return tls.Dial("tcp", addr, &tls.Config{ServerName: name, NextProtos: []string{acmez.ACMETLS1Protocol}, InsecureSkipVerify: true})
	}
	conn, err := dial("alpn.test")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if proto := conn.ConnectionState().NegotiatedProtocol; proto != acmez.ACMETLS1Protocol {
		t.Errorf("protocol %q", proto)
	}
	acmeIdentifier := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}
	digest := ""
	for _, e := range conn.ConnectionState().PeerCertificates[0].Extensions {
		if e.Id.Equal(acmeIdentifier) {
			digest = fmt.Sprintf("%x", e.Value)
		}
	}
	wanted := ""
	for _, e := range want.Leaf.Extensions {
		if e.Id.Equal(acmeIdentifier) {
			wanted = fmt.Sprintf("%x", e.Value)
		}
	}
	if digest == "" || digest != wanted {
		t.Errorf("digest %q, want %q", digest, wanted)
	}
	if conn, err := dial("other.test"); err == nil || !strings.Contains(err.Error(), "remote error: tls: internal error") {
		t.Errorf("a name without a challenge got %v, %v", conn, err)
	}
}

// certmagic's solvers find their port in use, and connections to it are closed.
func TestBlocker(t *testing.T) {
	c := acmeCerts(t, newMemStorage(), nil)
	i := c.loader.config.Issuers[0].(*certmagic.ACMEIssuer)
	if _, err := c.TLSConfig(); err != nil || i.AltHTTPPort != 0 {
		t.Errorf("a blocker without a name: port %d, %v", i.AltHTTPPort, err)
	}
	if _, err := c.TLSConfig("a.test", "b.test"); err != nil {
		t.Fatal(err)
	}
	if i.AltHTTPPort == 0 || i.AltHTTPPort != i.AltTLSALPNPort || i.ListenHost != "127.0.0.1" {
		t.Fatalf("solvers would listen on %q, ports %d and %d", i.ListenHost, i.AltHTTPPort, i.AltTLSALPNPort)
	}
	addr := net.JoinHostPort(i.ListenHost, fmt.Sprint(i.AltHTTPPort))
	if ln, err := net.Listen("tcp", addr); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen: %v, %v; want address in use", ln, err)
	}
	for range 3 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the blocker does not close what connects: %v", err)
		}
		conn.Close()
	}
	c.Close()
	if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the blocker outlives close: %v", err)
	}

	own := acmeCerts(t, newMemStorage(), func(_ *certmagic.Config, i *certmagic.ACMEIssuer) { i.AltHTTPPort = 5002 })
	if _, err := own.TLSConfig("a.test"); err != nil {
		t.Fatal(err)
	}
	if i := own.loader.config.Issuers[0].(*certmagic.ACMEIssuer); i.AltHTTPPort != 5002 || i.ListenHost != "" {
		t.Errorf("ports set on purpose became %q %d", i.ListenHost, i.AltHTTPPort)
	}
}
