package flotilla

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"golang.org/x/net/idna"
)

const handshakeHold = 5 * time.Second // how long a handshake waits for the first certificate

// tlsConfig returns a configuration that serves the certificates of this cluster, and sees to it that there are certificates for
// domains, which may be IP addresses. It does not wait for them: until there is one, handshakes for its name do, for five seconds at
// most, and then fail. Each call returns a configuration of its own; names may repeat. It answers the TLS-ALPN-01 challenges of every node.
func (c *certs) tlsConfig(domains ...string) (*tls.Config, error) {
	names := make([]string, 0, len(domains))
	for _, d := range domains {
		name := strings.ToLower(strings.TrimSpace(d))
		// The one form that certmagic stores certificates under; under another it would find none, and each node order its own.
		ip, noIP := netip.ParseAddr(name)
		if noIP == nil {
			name = ip.Unmap().String()
		}
		name, err := idna.ToASCII(name)
		if err != nil || !certmagic.SubjectQualifiesForCert(name) || strings.Contains(name, "..") || len(name) > 253 ||
			noIP != nil && strings.ContainsAny(name, "/:") {
			return nil, fmt.Errorf("flotilla: %q is neither a domain name nor an IP address", d)
		}
		if strings.Contains(name, "*") && !c.solvesDNS() {
			return nil, fmt.Errorf("flotilla: %q: a wildcard certificate needs the DNS-01 challenge; set the issuer's DNS01Solver in Config.TLS.Configure", d)
		}
		names = append(names, name)
	}
	if err := c.manage(names); err != nil {
		return nil, err
	}
	return &tls.Config{
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			c.hold(hello)
			return c.config.GetCertificate(hello)
		},
		NextProtos: []string{"h2", "http/1.1", acmez.ACMETLS1Protocol},
		MinVersion: tls.VersionTLS12,
	}, nil
}

// hold keeps a client waiting whose certificate is only about to be there, as on a node that has just started: a balancer that
// looks at nothing takes an open port for a working node, and there is no next node for those who are refused in the handshake.
func (c *certs) hold(hello *tls.ClientHelloInfo) {
	if slices.Contains(hello.SupportedProtos, acmez.ACMETLS1Protocol) {
		return
	}
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if name == "" {
		name, _, _ = net.SplitHostPort(hello.Conn.LocalAddr().String()) // as certmagic does for those who name nobody
	}
	c.mu.Lock()
	m := c.names[name]
	if _, parent, ok := strings.Cut(name, "."); m == nil && ok {
		m = c.names["*."+parent]
	}
	c.mu.Unlock()
	if m == nil {
		return
	}
	timer := time.NewTimer(handshakeHold)
	defer timer.Stop()
	select {
	case <-m.first:
	case <-timer.C:
	case <-hello.Context().Done():
	}
}
