package frontend

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// testTLS returns a connection limiter, a configuration that serves a.test and any IP address of
// loopback under its limit, and what verifies that.
func testTLS(tb testing.TB) (*Limiter, *tls.Config, *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"a.test"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	if leaf, err = x509.ParseCertificate(der); err != nil {
		tb.Fatal(err)
	}
	cert := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return NewLimiter(testlog.None()), &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return nil, acquireSlot(hello) },
		GetCertificate:     func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, acquireSlot(hello) },
		NextProtos:         []string{"h2", "http/1.1"},
	}, roots
}
