package certs

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/hostname"
	"github.com/mholt/acmez/v3"
)

const (
	handshakeHold = 5 * time.Second // how long a handshake waits until it is known what it gets
	strangeDots   = 10              // names with more that nobody manages are not looked for in certmagic's cache
)

// errUnknownName refuses a client in the first moment. It has no name in it: a record for each would be the attacker's to fill.
var errUnknownName = errors.New("flotilla: no certificate is served for this name")

// tlsConfig returns a configuration that serves the certificates of this cluster, and sees to it that there are certificates for
// domains, which may be IP addresses. It does not wait for them: until this node knows whether the cluster has one, handshakes for its
// name wait, for five seconds at most, and then fail; while there is none, they get a self-signed one. A client that names nobody
// gets the certificate of the address that it came to, if that is managed, or certmagic's DefaultServerName's, or that of the first domain. Each
// call returns a configuration of its own; names may repeat. It answers the TLS-ALPN-01 challenges of every node.
func (c *Certs) TLSConfig(domains ...string) (*tls.Config, error) {
	names, err := hostname.ForCertificates(domains, c.SolvesDNS())
	if err != nil {
		return nil, err
	}
	if err := c.manage(names); err != nil {
		return nil, err
	}
	first := ""
	if len(names) > 0 {
		first = names[0]
	}
	return &tls.Config{
		// No configuration means this one, or the copy of it that a server has made.
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			err := c.admitHello(hello)
			if err == nil {
				err = c.Limit.Acquire(hello)
			}
			return nil, err
		},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, err := c.certificate(hello, first)
			if err == nil {
				err = c.Limit.Acquire(hello)
			}
			return cert, err
		},
		NextProtos: []string{"h2", "http/1.1", acmez.ACMETLS1Protocol},
		MinVersion: tls.VersionTLS12,
	}, nil
}

// challenges reports whether hello may be an authority's that looks for the answer to a TLS-ALPN-01 challenge.
func challenges(hello *tls.ClientHelloInfo) bool {
	return slices.Contains(hello.SupportedProtos, acmez.ACMETLS1Protocol)
}

// admitHello refuses a client that asks for a name which cannot have a certificate here, before a key is agreed upon. It reads memory
// and remembers nothing, so a flood of such names costs next to nothing. With OnDemand all names may have one, and the
// DecisionFunc is asked, in GetCertificate, before anything is loaded or ordered.
func (c *Certs) admitHello(hello *tls.ClientHelloInfo) error {
	name := strings.ToLower(hello.ServerName)
	switch {
	case len(name) > hostname.MaxLength || name == "" && challenges(hello):
		return errUnknownName
	case challenges(hello) && len(hello.SupportedProtos) == 1:
		if !c.challenged(hello.Context(), name) {
			return errUnknownName // certmagic would write a record of it
		}
		return nil
	case name == "" || c.demands.config != nil || c.config.FallbackServerName != "" || c.config.CertSelection != nil:
		return nil
	}
	c.mu.Lock()
	m := c.find(name)
	c.mu.Unlock()
	if m != nil || strings.Count(name, ".") <= strangeDots && len(c.matching(name)) > 0 {
		return nil
	}
	return errUnknownName
}

// find returns what is known of a name that a client has asked for, nil if it is not managed. c.mu is held.
func (c *Certs) find(name string) *managed {
	m := c.names[name]
	if m != nil {
		return m
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		return c.names["*."+parent]
	}
	return nil
}

// certificate is GetCertificate of a configuration whose first domain is first; empty: it has none.
func (c *Certs) certificate(hello *tls.ClientHelloInfo, first string) (*tls.Certificate, error) {
	if challenges(hello) {
		c.Limit.Release(hello.Conn)
	}
	if challenges(hello) {
		return c.config.GetCertificate(hello)
	}
	if hello.ServerName == "" {
		named := *hello
		named.ServerName = c.unnamed(hello.Conn, first)
		hello = &named
	}
	name := strings.ToLower(hello.ServerName)
	c.hold(hello, name)
	if own, err := c.selfSigned(hello.Context(), name); own != nil || err != nil {
		return own, err
	}
	if c.isDemanded(name) {
		if cert, err := c.demanded(hello, name); cert != nil || err != nil {
			return cert, err
		}
	}
	cert, err := c.config.GetCertificate(hello)
	return c.staples.attach(cert), err
}

// unnamed returns the name whose certificate those get who name nobody: a balancer's check, a client that was given an address.
func (c *Certs) unnamed(conn net.Conn, first string) string {
	ip := ""
	if addr, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil {
		ip = addr.Addr().Unmap().WithZone("").String()
		c.mu.Lock()
		m := c.names[ip]
		c.mu.Unlock()
		if m != nil || len(c.matching(ip)) > 0 {
			return ip
		}
	}
	if c.config.DefaultServerName != "" {
		return c.config.DefaultServerName
	}
	if first != "" {
		return first
	}
	return ip
}

// hold keeps a client waiting while it is not known whether there is a certificate, as on a node that has just started: a balancer that
// looks at nothing takes an open port for a working node, and there is no next node for those who are refused in the handshake.
func (c *Certs) hold(hello *tls.ClientHelloInfo, name string) {
	c.mu.Lock()
	m := c.find(name)
	none := m != nil && m.none
	c.mu.Unlock()
	if m == nil {
		return
	}
	select {
	case <-m.known:
		if none {
			c.Limit.Release(hello.Conn) // the storage is asked first
		}
		return
	default:
	}
	c.Limit.Release(hello.Conn)
	timer := time.NewTimer(handshakeHold)
	defer timer.Stop()
	select {
	case <-m.known:
	case <-timer.C:
	case <-hello.Context().Done():
	}
}
