// Package testtls makes certificates and TLS handshakes for tests.
package testtls

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
)

// Identity returns a new certificate for the names, and the pool that verifies it. The certificate
// is its own authority. It is good for a server, for a client, and for an authority. At least one
// name is needed.
func Identity(names ...string) (tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:        true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool, nil
}

// Serial returns the serial number of the certificate that a client gets for name, in hexadecimal
// digits; empty if it gets none.
func Serial(server *tls.Config, name string) string {
	client, other := net.Pipe()
	defer client.Close()
	defer other.Close()
	go func() {
		tls.Server(other, server).Handshake()
		other.Close()
	}()
	conn := tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if conn.Handshake() != nil {
		return ""
	}
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Text(16)
}

// Resumes makes one connection in memory between the two sides, and reports whether it resumed a
// session.
func Resumes(ctx context.Context, client, server *tls.Config) (bool, error) {
	wire := simnet.New()
	ln, err := wire.Host("server").Listen("tcp", "server:443")
	if err != nil {
		return false, err
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
	near, err := wire.Host("client").Dial(ctx, "tcp", "server:443")
	if err != nil {
		return false, err
	}
	conn := tls.Client(near, client)
	_, err = io.ReadFull(conn, make([]byte, 1)) // in TLS 1.3 the ticket comes before the byte
	near.Close()
	if serr := <-served; err != nil || serr != nil {
		return false, fmt.Errorf("client: %w; server: %w", err, serr)
	}
	return conn.ConnectionState().DidResume, nil
}

// OneSession is a session cache that offers the same session to every server, as an attacker would.
// The embedded cache holds the session.
type OneSession struct{ tls.ClientSessionCache }

// Get returns the session for any server name.
func (c OneSession) Get(string) (*tls.ClientSessionState, bool) { return c.ClientSessionCache.Get("") }

// Put keeps the session, in place of the one before.
func (c OneSession) Put(_ string, s *tls.ClientSessionState) { c.ClientSessionCache.Put("", s) }
