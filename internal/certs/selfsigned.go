package certs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
)

// A name for which the cluster has never had a certificate is served with a self-signed one, so that the port works before the authority has
// answered. It is in memory alone. What it must never do is take the place of a real one: it is given only while this node
// knows, from a storage that is current, that there is none, and never again once there was one.

const (
	selfSignedName = "flotilla: no certificate yet"
	selfSignedLife = 24 * time.Hour
	selfSignedLeft = time.Hour // another is made when no more than this is left
)

// marker is the serial number of the self-signed certificates for name, the same on every node of a cluster and another in each cluster.
// It is how a node knows its own cluster at the end of a connection. Who forges it has a certificate ordered, no more.
func (c *Certs) marker(name string) *big.Int {
	mac := hmac.New(sha256.New, []byte(c.Cluster()))
	mac.Write([]byte(selfSignedName + "\x00" + name))
	sum := mac.Sum(nil)[:16]
	sum[0] = sum[0]&0x3f | 0x40 // positive, and of one length
	return new(big.Int).SetBytes(sum)
}

// ours reports whether a certificate that somebody shows who was asked for name is one that a node of this cluster would. Where each
// node has its own, one that an authority has given for the name may be.
func (c *Certs) ours(name string, leaf *x509.Certificate) bool {
	if c.perNode() && !bytes.Equal(leaf.RawIssuer, leaf.RawSubject) && leaf.VerifyHostname(name) == nil {
		return true
	}
	switch {
	case len(leaf.DNSNames) > 0:
		name = leaf.DNSNames[0]
	case len(leaf.IPAddresses) > 0:
		name = leaf.IPAddresses[0].String()
	}
	if leaf.SerialNumber.Cmp(c.marker(name)) == 0 {
		return true
	}
	for _, x := range c.matching(name) {
		if x.Leaf.Equal(leaf) {
			return true
		}
	}
	return false
}

// selfSigned returns what a handshake for name is given while the cluster has no certificate for it, nil if it is not to have that.
func (c *Certs) selfSigned(ctx context.Context, name string) (*tls.Certificate, error) {
	c.mu.Lock()
	m := c.find(name)
	if m == nil || !m.none {
		c.mu.Unlock()
		return nil, nil
	}
	own := m.own
	c.mu.Unlock()
	if len(c.matching(name)) > 0 {
		return nil, nil // that of a wildcard
	}
	has, err := c.inStorage(ctx, m.name)
	if err != nil {
		return nil, fmt.Errorf("flotilla: whether there is a certificate is not known: %w", err)
	}
	if has {
		// Another node has just stored it, and may be showing it already: this one has been told, and is about to load it.
		if err := c.refresh(ctx, m.name); err != nil {
			c.Log.Debug("a new certificate cannot be loaded", "domain", m.name, "error", err)
		}
		c.present(m.name)
		return nil, nil
	}
	now := time.Now()
	if own == nil || own.Leaf.NotAfter.Sub(now) < selfSignedLeft {
		if own, err = newSelfSigned(m.name, c.marker(m.name), now); err != nil {
			return nil, fmt.Errorf("flotilla: a self-signed certificate: %w", err)
		}
	}
	c.mu.Lock()
	if !m.none {
		c.mu.Unlock()
		return nil, nil
	}
	if m.own == nil || m.own.Leaf.NotAfter.Before(own.Leaf.NotAfter) {
		m.own = own
	}
	own = m.own
	news := !m.shown
	m.shown = true
	m.given++
	c.given.Add(1)
	c.mu.Unlock()
	context.AfterFunc(ctx, func() { // a handshake's context ends with it
		c.mu.Lock()
		defer c.mu.Unlock()
		m.given--
		c.given.Add(-1)
	})
	if news {
		c.Log.Warn("a self-signed certificate is being served until the authority has answered", "domain", m.name)
	}
	return own, nil
}

func newSelfSigned(name string, serial *big.Int, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: selfSignedName},
		NotBefore:    now.Add(-devca.Backdate),
		NotAfter:     now.Add(selfSignedLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},

		BasicConstraintsValid: true,
	}
	if ip := net.ParseIP(name); ip != nil {
		leaf.IPAddresses = []net.IP{ip}
	} else {
		leaf.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if leaf, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// provisional reports whether a handshake under way that asked for name, which is empty if it named nobody, may have a self-signed
// certificate: what it agrees upon is not to be resumed when there is a real one.
func (c *Certs) Provisional(name string) bool {
	if c.given.Load() == 0 {
		return false
	}
	if name == "" {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.find(strings.ToLower(name))
	return m != nil && m.given > 0
}

// absent takes down that the cluster has no certificate for name. It is for those who have asked a storage that is current.
func (c *Certs) absent(name string) {
	if c.immediate() {
		return
	}
	defer c.Changed()
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.names[name]; m != nil && !m.had {
		m.none = true
		m.once.Do(func() { close(m.known) })
	}
}

// immediate reports whether the private authority within the node is all that orders go to. It answers in no time, and its clients are
// better served by waiting for that.
func (c *Certs) immediate() bool {
	for _, i := range c.config.Issuers {
		if _, dev := i.(*devca.Issuer); !dev {
			return false
		}
	}
	return true
}

// present takes down that the cluster has a certificate for name, whatever it is worth.
func (c *Certs) present(name string) {
	c.mu.Lock()
	m := c.names[name]
	if m == nil {
		c.mu.Unlock()
		return
	}
	ends := m.none && m.shown
	m.had, m.none, m.own = true, false, nil
	c.mu.Unlock()
	c.Changed()
	if ends {
		c.Log.Info("the self-signed certificate is not served any more", "domain", name)
	}
}
