// Package testtls has certificates and handshakes for tests.
package testtls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
)

// Identity returns a certificate for the names, which is its own authority, and the pool that
// verifies it. It is good for a server, for a client, and for an authority.
func Identity(t testing.TB, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:        true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

// Resumes makes one connection, in memory, and reports whether its session was resumed.
func Resumes(t testing.TB, client, server *tls.Config) bool {
	t.Helper()
	wire := simnet.New()
	ln, err := wire.Host("server").Listen("tcp", "server:443")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		far, err := ln.Accept()
		if err == nil {
			_, err = tls.Server(far, server).Write([]byte("x"))
			far.Close()
		}
		served <- err
	}()
	near, err := wire.Host("client").Dial(t.Context(), "tcp", "server:443")
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(near, client)
	_, err = io.ReadFull(conn, make([]byte, 1)) // in TLS 1.3 the ticket comes before the byte
	near.Close()
	if serr := <-served; err != nil || serr != nil {
		t.Fatalf("client: %v; server: %v", err, serr)
	}
	return conn.ConnectionState().DidResume
}

// OneSession is a cache that offers the same session to every server, as an attacker would.
type OneSession struct{ tls.ClientSessionCache }

// Get returns the session, whatever the server's name is.
func (c OneSession) Get(string) (*tls.ClientSessionState, bool) { return c.ClientSessionCache.Get("") }

// Put keeps the session.
func (c OneSession) Put(_ string, s *tls.ClientSessionState) { c.ClientSessionCache.Put("", s) }
