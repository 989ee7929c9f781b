package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/selfsign"
)

// An unmanaged name with many labels is not looked up, even if the program has a certificate for
// it.
func TestManyLabelsAreNotLookedFor(t *testing.T) {
	c := bootCerts(t, newMemStorage(), always, func() error { return nil }, nil)
	config, err := c.TLSConfig("a.test")
	if err != nil {
		t.Fatal(err)
	}
	settle(t, c)
	for dots, want := range map[int]error{maxDots: nil, maxDots + 1: errUnknownName} {
		name := strings.Repeat("a.", dots) + "test"
		own, err := selfsign.New(name, devca.NewSerial(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.loader.config.CacheUnmanagedTLSCertificate(t.Context(), *own, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := config.GetConfigForClient(&tls.ClientHelloInfo{ServerName: name}); !errors.Is(err, want) {
			t.Errorf("a name with %d dots: %v, want %v", dots, err, want)
		}
	}
}

// Long names are refused before certmagic looks for wildcards: that takes time in the square of the
// length, seconds of CPU for one ClientHello or Host.
func TestLongNamesAreRefused(t *testing.T) {
	name := strings.Repeat("a.", 3000) + "test"
	hosts := map[string]func(*certmagic.Config){
		"ordinary": func(*certmagic.Config) {},
		"fallback": func(c *certmagic.Config) { c.FallbackServerName = "a.test" },
		"on demand": func(c *certmagic.Config) {
			c.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: func(context.Context, string) error { return nil }}
		},
	}
	for host, configure := range hosts {
		t.Run(host, func(t *testing.T) {
			storage := newMemStorage()
			c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
				cfg.Issuers = []certmagic.Issuer{&devca.Issuer{Storage: storage}}
				configure(cfg)
			}}, storage, false, always, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			cfg, err := c.TLSConfig("a.test")
			if err != nil {
				t.Fatal(err)
			}
			for _, protos := range [][]string{nil, {acmez.ACMETLS1Protocol}, {acmez.ACMETLS1Protocol, "h2"}} {
				if _, err := cfg.GetConfigForClient(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: protos}); err != errUnknownName {
					t.Errorf("ALPN %q: %v", protos, err)
				}
			}
			r := httptest.NewRequest("GET", "/", nil)
			r.TLS, r.Host = &tls.ConnectionState{}, name
			h := c.HSTS(time.Hour, http.NotFoundHandler())
			if n := testing.AllocsPerRun(1, func() { h.ServeHTTP(httptest.NewRecorder(), r) }); n > 1000 {
				t.Errorf("%v allocations for a Host", n)
			}
		})
	}
}

// A client that offers the challenge's protocol among others is not an authority, and is refused
// for a name that is not served.
func TestChallengeAmongOtherProtocols(t *testing.T) {
	c := devCerts(t, newMemStorage(), nil)
	cfg, err := c.TLSConfig("a.test")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{"a.test": nil, "b.test": errUnknownName} {
		if _, err := cfg.GetConfigForClient(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{acmez.ACMETLS1Protocol, "h2"}}); err != want {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}
