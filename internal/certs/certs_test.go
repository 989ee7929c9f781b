package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// countingIssuer is the development CA, counted, and refusing names that begin with "bad".
type countingIssuer struct {
	devca.Issuer
	issued *atomic.Int64
}

func (i *countingIssuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	if slices.ContainsFunc(csr.DNSNames, func(n string) bool { return strings.HasPrefix(n, "bad") }) {
		return nil, errors.New("refused")
	}
	i.issued.Add(1)
	return i.Issuer.Issue(ctx, csr)
}

func always(context.Context) error { return nil }

// devCerts returns certificates of the development CA in storage, counting those issued if issued
// is not nil.
func devCerts(t *testing.T, storage certmagic.Storage, issued *atomic.Int64) *Certs {
	t.Helper()
	var cfg Policy
	if issued != nil {
		cfg.Configure = func(c *certmagic.Config, _ *certmagic.ACMEIssuer) {
			c.Issuers = []certmagic.Issuer{&countingIssuer{Issuer: devca.Issuer{Storage: storage}, issued: issued}}
		}
	}
	c, err := openCerts(cfg, storage, true, always, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// serveTLS serves h for domains on loopback by c, and returns the address.
func serveTLS(t *testing.T, c *Certs, h http.Handler, domains ...string) string {
	t.Helper()
	cfg, err := c.TLSConfig(domains...)
	if err != nil {
		t.Fatal(err)
	}
	ln := tls.NewListener(listenLoopback(t), cfg)
	srv := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return ln.Addr().String()
}

// leafOf returns the certificate that addr shows for name.
func leafOf(t *testing.T, addr, name string, roots *x509.CertPool) (*x509.Certificate, error) {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: name, RootCAs: roots})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

// settle waits until all names of c have a certificate.
func settle(t *testing.T, c *Certs) {
	t.Helper()
	c.obtainer.work.Wait()
	for _, s := range c.Status() {
		if !s.Managed || s.Err != nil {
			t.Fatalf("no certificate: %+v", s)
		}
	}
}

func TestDevelopmentCertificateIsServed(t *testing.T) {
	skipShort(t)
	storage := newMemStorage()
	c := devCerts(t, storage, nil)
	addr := serveTLS(t, c, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }), "Local.Test", "127.0.0.1")
	settle(t, c)

	client := &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: stubca.DevRoots(t, storage), ServerName: "local.test"},
	}}
	defer client.CloseIdleConnections()
	res, err := client.Get("https://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); string(body) != "HTTP/2.0" {
		t.Errorf("protocol %q, want HTTP/2.0", body)
	}
	leaf := res.TLS.PeerCertificates[0]
	if leaf.PublicKeyAlgorithm != x509.ECDSA {
		t.Errorf("key is %v, want ECDSA", leaf.PublicKeyAlgorithm)
	}
	want := Status{Domain: "local.test", Serial: leaf.SerialNumber.Text(16), Issuer: "flotilla development CA", NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Renewal: dueOf(leaf), Managed: true}
	all := c.Status()
	if len(all) != 2 || all[0].Domain != "127.0.0.1" {
		t.Fatalf("status: %+v", all)
	}
	if diff := cmp.Diff(want, all[1]); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	for _, cert := range c.loader.matching("local.test") {
		if cert.NeedsRenewal(c.loader.config) {
			t.Error("a new certificate is due for renewal")
		}
	}

	t.Run("unknown name", func(t *testing.T) {
		if leaf, err := leafOf(t, addr, "other.test", stubca.DevRoots(t, storage)); err == nil || !strings.Contains(err.Error(), "remote error: tls: internal error") {
			t.Errorf("served %v for a name that is not managed: %v", leaf, err)
		}
	})
	t.Run("TLS 1.1", func(t *testing.T) {
		_, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "local.test", InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
		if err == nil || !strings.Contains(err.Error(), "protocol version not supported") {
			t.Errorf("a client of TLS 1.1 gets %v", err)
		}
	})
	t.Run("storage fails", func(t *testing.T) {
		storage.fail.Store(-1)
		defer storage.fail.Store(0)
		if _, err := leafOf(t, addr, "local.test", nil); !errors.As(err, new(x509.UnknownAuthorityError)) {
			t.Errorf("handshake: %v, want the certificate, which is not trusted here", err)
		}
	})
}

func TestNodesShareOneCertificate(t *testing.T) {
	skipShort(t)
	var issued atomic.Int64
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	var addrs []string
	var nodes []*Certs
	for range 3 {
		c := devCerts(t, storage, &issued)
		nodes = append(nodes, c)
		addrs = append(addrs, serveTLS(t, c, http.NotFoundHandler(), "shared.test"))
	}
	serials := map[string]bool{}
	for i, c := range nodes {
		settle(t, c)
		leaf, err := leafOf(t, addrs[i], "shared.test", stubca.DevRoots(t, storage))
		if err != nil {
			t.Fatal(err)
		}
		serials[leaf.SerialNumber.String()] = true
	}
	if issued.Load() != 1 || len(serials) != 1 {
		t.Errorf("%d issued, %d served; want one", issued.Load(), len(serials))
	}
}

func TestRefreshReplaces(t *testing.T) {
	skipShort(t)
	storage := newMemStorage()
	a, b := devCerts(t, storage, nil), devCerts(t, storage, nil)
	addr := serveTLS(t, b, http.NotFoundHandler(), "new.test")
	settle(t, b)
	old := b.Status()[0].Serial
	if err := a.loader.config.RenewCertSync(t.Context(), "new.test", true); err != nil {
		t.Fatal(err)
	}
	if err := b.loader.refresh(t.Context(), "new.test"); err != nil {
		t.Fatal(err)
	}
	leaf, err := leafOf(t, addr, "new.test", stubca.DevRoots(t, storage))
	if err != nil {
		t.Fatal(err)
	}
	if got := leaf.SerialNumber.Text(16); got == old || got != b.Status()[0].Serial || len(b.loader.matching("new.test")) != 1 {
		t.Errorf("serves %s after %s, status %+v", got, old, b.Status())
	}
	if err := b.loader.refresh(t.Context(), "none.test"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("refresh of a name without certificate: %v", err)
	}
}

// Retries run in virtual time.
func TestObtainRetries(t *testing.T) {
	synctest.Parallel(t)
	t.Run("storage fails at first", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			storage := newMemStorage()
			storage.fail.Store(3)
			c := devCerts(t, storage, new(atomic.Int64))
			defer c.Close()
			if _, err := c.TLSConfig("late.test"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if s := c.Status()[0]; !errors.Is(s.Err, errInjected) && !strings.Contains(s.Err.Error(), errInjected.Error()) || s.Managed {
				t.Errorf("status after a failure: %+v", s)
			}
			time.Sleep(30 * time.Second)
			synctest.Wait()
			if s := c.Status()[0]; s.Err != nil || !s.Managed {
				t.Errorf("status after retries: %+v", s)
			}
		})
	})
	t.Run("not before ready", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			gate := make(chan struct{})
			c, err := openCerts(Policy{}, newMemStorage(), true, func(ctx context.Context) error {
				select {
				case <-gate:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.TLSConfig("a.test"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if s := c.Status()[0]; s.Managed || s.Err == nil {
				t.Errorf("status before ready: %+v", s)
			}
			close(gate)
			time.Sleep(orderJitter)
			synctest.Wait()
			if s := c.Status()[0]; !s.Managed {
				t.Errorf("status after ready: %+v", s)
			}
		})
	})
	t.Run("one name fails for ever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := devCerts(t, newMemStorage(), new(atomic.Int64))
			defer c.Close()
			if _, err := c.TLSConfig("bad.test", "good.test"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(orderJitter)
			synctest.Wait()
			all := c.Status()
			if all[0].Err == nil || all[0].Managed || all[1].Err != nil || !all[1].Managed {
				t.Errorf("status: %+v", all)
			}
		})
	})
	t.Run("another node is luckier", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			storage := newMemStorage()
			a := devCerts(t, storage, new(atomic.Int64))
			defer a.Close()
			if _, err := a.TLSConfig("bad.test"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute) // its pauses are as long as they get
			// A CA that does not refuse.
			b := devCerts(t, storage, nil)
			defer b.Close()
			if _, err := b.TLSConfig("bad.test"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(orderJitter + lookInterval)
			synctest.Wait()
			if s := a.Status()[0]; !s.Managed || s.Serial != b.Status()[0].Serial {
				t.Errorf("status: %+v, of the other node: %+v", s, b.Status()[0])
			}
		})
	})
	t.Run("expired in storage, renewal fails at first", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			storage := newMemStorage()
			first := devCerts(t, storage, nil)
			if _, err := first.TLSConfig("old.test"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(orderJitter)
			synctest.Wait()
			old := first.Status()[0].Serial
			first.Close()
			time.Sleep(devca.LeafLife + time.Hour)

			refuse := true
			c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
				cfg.OnEvent = func(_ context.Context, event string, _ map[string]any) error {
					if event == "cert_obtaining" && refuse {
						refuse = false
						return errInjected
					}
					return nil
				}
			}}, storage, true, always, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.TLSConfig("old.test"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(orderJitter)
			synctest.Wait()
			if s := c.Status()[0]; s.Err == nil || s.Managed {
				t.Errorf("status with an expired certificate: %+v", s)
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if s := c.Status()[0]; s.Err != nil || s.Serial == old || len(c.loader.matching("old.test")) != 1 {
				t.Errorf("status: %+v", s)
			}
		})
	})
}

func TestNewCertsRefuses(t *testing.T) {
	storage := newMemStorage()
	for _, tc := range []struct {
		name, field string
		tls         Policy
	}{
		{"CA over http", "TLS.CA", Policy{CA: "http://ca.test/dir"}},
		{"CA without host", "TLS.CA", Policy{CA: "https:///dir"}},
		{"CA without scheme", "TLS.CA", Policy{CA: "ca.test/dir"}},
		{"CA with a password", "TLS.CA", Policy{CA: "https://u:hunter2@ca.test/dir"}},
		{"CA that is no URL", "TLS.CA", Policy{CA: "https://hunter2%zz/"}},
		{"e-mail", "TLS.Email", Policy{Email: "nobody"}},
		{"e-mail with a name", "TLS.Email", Policy{Email: "A <a@b.test>"}},
		{"other storage", "TLS.Configure", Policy{Configure: func(c *certmagic.Config, _ *certmagic.ACMEIssuer) { c.Storage = newMemStorage() }}},
		{"no issuer", "TLS.Configure", Policy{Configure: func(c *certmagic.Config, _ *certmagic.ACMEIssuer) { c.Issuers = nil }}},
		{"no logger", "TLS.Configure", Policy{Configure: func(c *certmagic.Config, _ *certmagic.ACMEIssuer) { c.Logger = nil }}},
		{"on demand for anybody", "TLS.Configure", Policy{Configure: func(c *certmagic.Config, _ *certmagic.ACMEIssuer) { c.OnDemand = new(certmagic.OnDemandConfig) }}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := openCerts(tc.tls, storage, false, always, nil)
			var ce *errs.ConfigError
			if !errors.As(err, &ce) || ce.Field != tc.field {
				t.Fatalf("New: %v, %v; want a ConfigError for %s", c, err, tc.field)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error repeats what may be a password: %v", err)
			}
		})
	}
}

func TestTLSConfigRefuses(t *testing.T) {
	c, err := openCerts(Policy{CA: "https://127.0.0.1:1/dir"}, newMemStorage(), false, always, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, name := range []string{"", " ", "a b.test", ".test", "a..test", "a/b", "https://a.test", "a.test:443", "*.a.test", "a.*.test", strings.Repeat("a.", 127) + "test"} {
		want := "is neither a domain name nor an IP address"
		if name == "*.a.test" {
			want = "needs the DNS-01 challenge"
		}
		if _, err := c.TLSConfig(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("tlsConfig(%q): %v, want %q", name, err, want)
		}
	}
	if n := len(c.Status()); n != 0 {
		t.Errorf("%d names are managed", n)
	}
	c.Close()
	if _, err := c.TLSConfig("a.test"); !errors.Is(err, errs.ErrClosed) {
		t.Errorf("tlsConfig after close: %v", err)
	}
}

func TestACMEIssuerIsTamed(t *testing.T) {
	var given *certmagic.ACMEIssuer
	c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, i *certmagic.ACMEIssuer) {
		given = i
		i.TestCA = certmagic.LetsEncryptStagingCA
	}}, newMemStorage(), false, always, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	i := c.loader.config.Issuers[0].(*certmagic.ACMEIssuer)
	if i != given || i.CA != certmagic.LetsEncryptProductionCA || i.TestCA != "" || !i.Agreed {
		t.Errorf("CA %q, test CA %q, agreed %v", i.CA, i.TestCA, i.Agreed)
	}
	// A terminal that is asked would be read from here; certmagic takes any answer for an agreement.
	if err := i.PreCheck(t.Context(), []string{"a.example.com"}, true); err != nil {
		t.Error(err)
	}
	if certmagic.DefaultACME.Agreed {
		t.Error("the terminal was asked for an e-mail address")
	}
}

// A damaged root of the development CA is not replaced: others trust it.
func TestDevIssuerDamagedRoot(t *testing.T) {
	storage := newMemStorage()
	i := &devca.Issuer{Storage: storage}
	root, err := i.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again, err := (&devca.Issuer{Storage: storage}).Root(t.Context())
	if err != nil || !again.Equal(root) {
		t.Errorf("second root: %v", err)
	}
	good := storage.data[devca.RootRecord]
	block, rest := pem.Decode(good)
	for name, text := range map[string][]byte{
		"empty":     {},
		"no key":    devca.PEM("CERTIFICATE", block.Bytes),
		"bad cert":  append(devca.PEM("CERTIFICATE", block.Bytes[1:]), rest...),
		"bad key":   append(devca.PEM("CERTIFICATE", block.Bytes), devca.PEM("PRIVATE KEY", []byte("x"))...),
		"cut short": good[:len(good)-30],
	} {
		storage.data[devca.RootRecord] = text
		if _, err := i.Root(t.Context()); err == nil || !strings.Contains(err.Error(), "development CA: "+devca.RootRecord) {
			t.Errorf("%s: the error is %v", name, err)
		}
		if !cmp.Equal(storage.data[devca.RootRecord], text) {
			t.Errorf("%s: it was replaced", name)
		}
	}
	storage.data[devca.RootRecord] = good
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"a.test"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Issue(t.Context(), request); err != nil {
		t.Errorf("a request is refused: %v", err)
	}
	request.Signature[len(request.Signature)-1] ^= 1
	if _, err := i.Issue(t.Context(), request); err == nil || !strings.Contains(err.Error(), "request: x509: ECDSA verification failure") {
		t.Errorf("a request whose signature is another's: %v", err)
	}
}
