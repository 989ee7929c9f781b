package clustertest

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
)

// keepInBubble returns an error if the configuration of a node leads to real sockets. A goroutine
// that waits for one does not let virtual time go on, so the test would hang. A public authority
// fails the test when it is asked for a certificate.
func keepInBubble(t testing.TB, node string, cfg *flotilla.Config) error {
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
			"stands still; leave it as it was, or wrap it", missing, node)
	}
	if cfg.TLS.Private {
		return nil
	}
	configure := cfg.TLS.Configure
	cfg.TLS.Configure = func(config *certmagic.Config, issuer *certmagic.ACMEIssuer) {
		former := transportOf(issuer) // of certmagic: on real sockets
		if configure != nil {
			configure(config, issuer)
		}
		for k, is := range config.Issuers {
			acme, ok := is.(*certmagic.ACMEIssuer)
			if ok && (acme == issuer && former != nil && transportOf(acme) == former || acme != issuer && isPublic(acme.CA)) {
				config.Issuers[k] = &outside{t, node, acme}
			}
		}
	}
	return nil
}

// transportOf returns what an issuer's requests go through. An authority in memory replaces it.
func transportOf(i *certmagic.ACMEIssuer) http.RoundTripper {
	if i == nil {
		return nil
	}
	if client := backoff.HTTPClientOf(i); client != nil {
		return client.Transport
	}
	return nil
}

// isPublic reports whether a CA is one that only real sockets reach.
func isPublic(ca string) bool {
	for _, known := range []string{
		certmagic.LetsEncryptProductionCA, certmagic.LetsEncryptStagingCA, certmagic.ZeroSSLProductionCA,
		certmagic.GoogleTrustProductionCA, certmagic.GoogleTrustStagingCA,
	} {
		if strings.EqualFold(ca, known) {
			return true
		}
	}
	return false
}

// outside stands for an authority that cannot be reached from a bubble. It fails the test when it
// is asked for a certificate.
type outside struct {
	t      testing.TB
	node   string
	issuer *certmagic.ACMEIssuer
}

// Issue implements certmagic.Issuer.
func (o *outside) Issue(context.Context, *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	err := fmt.Errorf("%s wants a certificate of %s, which is behind real sockets, and the virtual time of this bubble stands still on them; "+
		"leave out TLS.CA, for an authority within the cluster, or name one that is in memory", o.node, o.issuer.CA)
	o.t.Errorf("clustertest: %v", err)
	return nil, err
}

// IssuerKey implements certmagic.Issuer.
func (o *outside) IssuerKey() string { return o.issuer.IssuerKey() }
