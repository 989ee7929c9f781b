package certs

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/selfsign"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

func TestHSTS(t *testing.T) {
	storage := newMemStorage()
	var out bytes.Buffer
	c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
		cfg.Issuers = []certmagic.Issuer{&devca.Issuer{Storage: storage}}
	}}, storage, false, always, testlog.To(&out, slog.LevelError))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if _, err := c.TLSConfig("a.test", "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	settle(t, c)
	old, err := selfsign.New("old.test", c.handshakes.provisional.marker("old.test"), time.Now().Add(-2*selfsign.Life))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.loader.config.CacheUnmanagedTLSCertificate(t.Context(), *old, nil); err != nil || len(c.loader.matching("old.test")) != 1 {
		t.Fatal(err)
	}
	dev := devCerts(t, storage, nil)
	if _, err := dev.TLSConfig("a.test"); err != nil {
		t.Fatal(err)
	}
	settle(t, dev)
	const year = 365 * 24 * time.Hour
	for _, tc := range []struct {
		name   string
		certs  *Certs
		host   string
		plain  bool
		maxAge time.Duration
		want   string
	}{
		{"a year", c, "a.test", false, year, "max-age=31536000"},
		{"host with a port and a dot", c, "A.test.:8443", false, year, "max-age=31536000"},
		{"forget", c, "a.test", false, 0, "max-age=0"},
		{"less than full seconds", c, "a.test", false, 1999 * time.Millisecond, "max-age=1"},
		{"over plain HTTP", c, "a.test", true, year, ""},
		{"no certificate", c, "b.test", false, year, ""},
		{"an expired certificate", c, "old.test", false, year, ""},
		{"an address with a certificate", c, "192.0.2.1", false, year, ""},
		{"an IPv6 address", c, "[2001:db8::1]:443", false, year, ""},
		{"no host", c, "", false, year, ""},
		{"development", dev, "a.test", false, year, ""},
		{"negative", c, "a.test", false, -year, ""},
		{"seconds without a unit", c, "a.test", false, 31536000, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out.Reset()
			h := tc.certs.HSTS(tc.maxAge, http.NotFoundHandler())
			if bad := tc.maxAge < 0 || tc.maxAge == 31536000; bad != strings.Contains(out.String(), "maxAge") {
				t.Errorf("log: %q", out.String())
			}
			r := httptest.NewRequest("GET", "/", nil)
			if r.Host = tc.host; !tc.plain {
				r.TLS = &tls.ConnectionState{}
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if got := strings.Join(w.Header()["Strict-Transport-Security"], "|"); w.Code != 404 || got != tc.want {
				t.Errorf("%d %q, want %q", w.Code, got, tc.want)
			}
		})
	}
}
