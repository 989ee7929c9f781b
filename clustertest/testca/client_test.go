package testca_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/simnet"
)

// web is a host that answers challenges, as a solver of acmez.
type web struct {
	host *simnet.Host

	mu     sync.Mutex
	chal   acme.Challenge
	name   string                              // that was asked for last
	answer func(acme.Challenge) acme.Challenge // what it answers as; nil: the truth
}

// newWeb opens the ports of a host until the test ends.
func newWeb(t *testing.T) *web {
	t.Helper()
	w := &web{host: simnet.New().Host("web")}
	listen := func(addr string) net.Listener {
		ln, err := w.host.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	quiet := log.New(io.Discard, "", 0)
	for _, serve := range []struct {
		ln net.Listener
		s  *http.Server
	}{
		{listen("web:80"), &http.Server{ErrorLog: quiet, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.heard(r.Host)
			if c := w.present(); r.URL.Path == c.HTTP01ResourcePath() {
				io.WriteString(rw, c.KeyAuthorization)
				return
			}
			http.NotFound(rw, r)
		})}},
		{tls.NewListener(listen("web:443"), &tls.Config{
			NextProtos: []string{acmez.ACMETLS1Protocol},
			GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				w.heard(hello.ServerName)
				return acmez.TLSALPN01ChallengeCert(w.present())
			},
		}), &http.Server{ErrorLog: quiet}},
	} {
		done := make(chan struct{})
		go func() { defer close(done); serve.s.Serve(serve.ln) }()
		t.Cleanup(func() { serve.s.Close(); <-done })
	}
	return w
}

func (w *web) Present(_ context.Context, c acme.Challenge) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chal = c
	return nil
}

func (w *web) CleanUp(context.Context, acme.Challenge) error { return nil }

func (w *web) present() acme.Challenge {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.answer != nil {
		return w.answer(w.chal)
	}
	return w.chal
}

func (w *web) heard(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.name = name
}

// asked returns the name that was asked for last, as it was written.
func (w *web) asked() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.name
}

// Dial leads every name to the host.
func (w *web) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return w.host.Dial(ctx, network, net.JoinHostPort("web", port))
}

// customer is an account at an authority, with its client.
type customer struct {
	*acmez.Client
	acme.Account
}

// newCustomer opens an account with a key.
func newCustomer(t *testing.T, ca *testca.Authority, key crypto.Signer, solvers map[string]acmez.Solver) *customer {
	t.Helper()
	c := &customer{Client: &acmez.Client{
		Client:           &acme.Client{Directory: ca.URL(), HTTPClient: &http.Client{Transport: ca}},
		ChallengeSolvers: solvers,
	}}
	var err error
	if c.Account, err = c.NewAccount(t.Context(), acme.Account{PrivateKey: key, Contact: []string{"mailto:a@a.example"}}); err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// order has a certificate ordered, and returns it.
func (c *customer) order(t *testing.T, names ...string) (*x509.Certificate, error) {
	t.Helper()
	chains, err := c.ObtainCertificateForSANs(t.Context(), c.Account, newKey(t), names)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(chains[0].ChainPEM)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf, nil
}

// replacing returns an order that replaces a certificate.
func (c *customer) replacing(t *testing.T, old *x509.Certificate, names ...string) acmez.OrderParameters {
	t.Helper()
	csr, err := acmez.NewCSR(newKey(t), names)
	if err != nil {
		t.Fatal(err)
	}
	p, err := acmez.OrderParametersFromCSR(c.Account, csr)
	if err != nil {
		t.Fatal(err)
	}
	p.Replaces = old
	return p
}

// manager returns a configuration of certmagic that orders at an authority until the test ends.
func manager(t *testing.T, ca *testca.Authority, email string) (*certmagic.Config, *certmagic.ACMEIssuer) {
	t.Helper()
	var cfg *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return cfg, nil }, Logger: zap.NewNop(),
	})
	t.Cleanup(cache.Stop)
	cfg = certmagic.New(cache, certmagic.Config{Storage: &certmagic.FileStorage{Path: t.TempDir()}, Logger: zap.NewNop()})
	issuer := certmagic.NewACMEIssuer(cfg, certmagic.ACMEIssuer{Email: email, Agreed: true, Logger: zap.NewNop()})
	cfg.Issuers = []certmagic.Issuer{issuer}
	ca.Configure(cfg, issuer)
	return cfg, issuer
}

// wantProblem checks that err is a problem of a kind, whose text has a part.
func wantProblem(t *testing.T, err error, kind, part string) {
	t.Helper()
	var p acme.Problem
	if !errors.As(err, &p) || p.Type != acme.ProblemTypeNamespace+kind || !strings.Contains(p.Detail, part) {
		t.Errorf("%v, want %s with %q", err, kind, part)
	}
}

// keys returns a key of each kind that accounts may have.
func keys(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	all := make(map[string]crypto.Signer)
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		all[curve.Params().Name] = key
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	all["RSA"] = key
	return all
}
