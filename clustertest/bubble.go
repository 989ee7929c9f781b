package clustertest

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla"
)

// keepInBubble returns an error if the configuration of node i leads to real sockets. A goroutine
// that waits for one does not let virtual time go on, so the test would hang. A public authority
// fails the test when it is asked for a certificate.
func (c *Cluster) keepInBubble(i int, cfg *flotilla.Config) error {
	missing := ""
	switch {
	case cfg.PeerListen == nil:
		missing = "PeerListen"
	case cfg.PeerDial == nil:
		missing = "PeerDial"
	case cfg.Listen == nil:
		missing = "Listen"
	}
	if missing != "" {
		return fmt.Errorf("clustertest: Config.%s of %s is nil: the node would use real sockets, on which the virtual time of this bubble "+
			"stands still; leave it as it was, or wrap it", missing, name(i))
	}
	if cfg.TLS.Private {
		return nil
	}
	configure := cfg.TLS.Configure
	cfg.TLS.Configure = func(config *certmagic.Config, issuer *certmagic.ACMEIssuer) {
		if configure != nil {
			configure(config, issuer)
		}
		for k, is := range config.Issuers {
			if acme, ok := is.(*certmagic.ACMEIssuer); ok && (isPublic(acme.CA) || configure == nil && isLocal(acme.CA)) {
				config.Issuers[k] = &outside{c, i, acme}
			}
		}
	}
	return nil
}

// isPublic reports whether a CA is one that only real sockets reach.
func isPublic(ca string) bool {
	for _, known := range []string{
		certmagic.LetsEncryptProductionCA, certmagic.LetsEncryptStagingCA, certmagic.ZeroSSLProductionCA,
		certmagic.GoogleTrustProductionCA, certmagic.GoogleTrustStagingCA,
	} {
		if strings.EqualFold(host(ca), host(known)) {
			return true
		}
	}
	return false
}

// isLocal reports whether a CA is at a real socket of this machine.
func isLocal(ca string) bool {
	addr, err := netip.ParseAddr(host(ca))
	return err == nil && addr.IsLoopback() || host(ca) == "localhost"
}

// host returns the host of a URL, empty if it is none.
func host(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// outside stands for an authority that cannot be reached from a bubble. It fails the test when it
// is asked for a certificate.
type outside struct {
	cluster *Cluster
	node    int
	issuer  *certmagic.ACMEIssuer
}

// Issue implements certmagic.Issuer.
func (o *outside) Issue(context.Context, *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	err := fmt.Errorf("%s wants a certificate of %s, which is behind real sockets, and the virtual time of this bubble stands still on them; "+
		"leave out TLS.CA, for an authority within the cluster, or name one that is in memory", name(o.node), o.issuer.CA)
	o.cluster.t.Errorf("clustertest: %v", err)
	return nil, err
}

// IssuerKey implements certmagic.Issuer.
func (o *outside) IssuerKey() string { return o.issuer.IssuerKey() }
