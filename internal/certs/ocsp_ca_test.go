package certs

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/crypto/ocsp"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
)

const stapleLife = 4 * 24 * time.Hour // of the answers of an ocspCA, if they are not edited

// ocspCA is an authority whose certificates name a responder, which it is too.
type ocspCA struct {
	url       string            // that its certificates name; empty: none
	overrides map[string]string // other responders to ask
	alone     bool              // its certificates come without a chain
	root      *x509.Certificate
	key       crypto.Signer
	issued    atomic.Int64
	asked     atomic.Int64

	mu   sync.Mutex
	fail error // of orders
	// if not nil, has its way with an answer, and reports whether it is all written
	edit func(http.ResponseWriter, *saying) bool
}

// saying is what an ocspCA is about to say.
type saying struct {
	*http.Request
	ocsp.Response
	signer *x509.Certificate // in whose name
	key    crypto.Signer
}

func signed(t *testing.T, tmpl, parent *x509.Certificate, signer crypto.Signer) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl.SerialNumber, tmpl.NotBefore = devca.NewSerial(), time.Now().Add(-devca.Backdate)
	tmpl.NotAfter, tmpl.Subject = time.Now().Add(devca.RootLife), pkix.Name{CommonName: "test"}
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func newOCSPCA(t *testing.T, url string) *ocspCA {
	t.Helper()
	a := &ocspCA{url: url}
	a.root, a.key = signed(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	return a
}

func (a *ocspCA) IssuerKey() string { return "ocsp-ca" }

func (a *ocspCA) Issue(_ context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	a.issued.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail != nil {
		return nil, a.fail
	}
	leaf := &x509.Certificate{
		SerialNumber: devca.NewSerial(), NotBefore: time.Now().Add(-devca.Backdate), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		DNSNames: csr.DNSNames, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if a.url != "" {
		leaf.OCSPServer = []string{a.url}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.root, csr.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	chain := devca.PEM("CERTIFICATE", der)
	if !a.alone {
		chain = append(chain, devca.PEM("CERTIFICATE", a.root.Raw)...)
	}
	return &certmagic.IssuedCertificate{Certificate: chain}, nil
}

func (a *ocspCA) answers(edit func(http.ResponseWriter, *saying) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.edit = edit
}

func (a *ocspCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.asked.Add(1)
	a.mu.Lock()
	edit := a.edit
	a.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	question, err := ocsp.ParseRequest(body)
	if err != nil || r.Header.Get("Content-Type") != "application/ocsp-request" {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	say := saying{Request: r, signer: a.root, key: a.key, Response: ocsp.Response{
		Status: ocsp.Good, SerialNumber: question.SerialNumber, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(stapleLife),
	}}
	if edit != nil && edit(w, &say) {
		return
	}
	raw, err := ocsp.CreateResponse(a.root, say.signer, say.Response, say.key)
	if err != nil {
		panic(err)
	}
	w.Write(raw)
}

// RoundTrip takes questions within a bubble, where there is no network.
func (a *ocspCA) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// nodes returns the certificates of n nodes of a cluster. With bubble they ask the responder
// without a network.
func (a *ocspCA) nodes(t *testing.T, n int, storage *memStorage, bubble bool, l *slog.Logger) []*Certs {
	t.Helper()
	nodes := make([]*Certs, n)
	for i := range nodes {
		c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
			cfg.Issuers = []certmagic.Issuer{a}
			cfg.OCSP.DisableStapling = false // is not heeded
			cfg.OCSP.ResponderOverrides = a.overrides
		}}, storage, true, always, l, func(c *Config) {
			if bubble {
				c.Network = a
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		nodes[i] = c
	}
	storage.notify(nodes...)
	return nodes
}
