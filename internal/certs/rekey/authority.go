package rekey

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/clocks"
)

var (
	errNoKey     = errors.New("neither the key of the certificate nor an account of its authority is in the storage")
	errNoRevoker = errors.New("its issuer cannot revoke, and is no ACME authority that is known: " +
		"revoke the certificate there by hand; this line goes when it has expired")
)

const requestTimeout = 30 * time.Second // of a request to an authority that no issuer is for

// issuer returns the issuer whose directory has this name, nil if none is configured.
func (r *Rekeyer) issuer(dir string) certmagic.Issuer {
	for _, i := range r.Certmagic.Issuers {
		if certmagic.StorageKeys.Safe(i.IssuerKey()) == dir {
			return i
		}
	}
	return nil
}

// client returns a client of the ACME authority whose directory has this name. ca is its URL, if
// that is known otherwise. It returns nil for an authority that cannot be found.
func (r *Rekeyer) client(dir, ca string) *acme.Client {
	if i, ok := r.issuer(dir).(*certmagic.ACMEIssuer); ok {
		// with the transport that heeds the pauses which the authority demands
		return &acme.Client{Directory: i.CA, HTTPClient: backoff.HTTPClientOf(i)}
	}
	for _, known := range []string{ca, certmagic.LetsEncryptProductionCA, certmagic.LetsEncryptStagingCA, certmagic.ZeroSSLProductionCA, certmagic.GoogleTrustProductionCA} {
		key := (&certmagic.ACMEIssuer{CA: known}).IssuerKey()
		if known == "" || certmagic.StorageKeys.Safe(key) != dir {
			continue
		}
		transport := r.Network
		if transport == nil {
			transport = &http.Transport{
				Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: r.Roots},
			}
		}
		return &acme.Client{Directory: known, HTTPClient: &http.Client{Transport: transport, Timeout: requestTimeout}}
	}
	return nil
}

// problem returns the answer of an authority that refused a request, and whether err is one. An
// authority that wants no requests now, or has failed, has not answered.
func problem(err error) (acme.Problem, bool) {
	var p acme.Problem
	ok := errors.As(err, &p) && p.Status != http.StatusTooManyRequests && p.Status < http.StatusInternalServerError &&
		p.Type != acme.ProblemTypeRateLimited && p.Type != acme.ProblemTypeBadNonce
	return p, ok
}

// revoke has a certificate revoked because its key is known to others. It returns nil if nobody can
// use the certificate any more.
func (r *Rekeyer) revoke(ctx context.Context, c *certificate) error {
	leaf, err := x509.ParseCertificate(c.Leaf)
	if err != nil {
		return err
	}
	if r.hasExpired(leaf) {
		return nil
	}
	if isOwn(c) {
		return nil // its root was replaced
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	client := r.client(c.Issuer, c.CA)
	if client == nil {
		i, ok := r.issuer(c.Issuer).(certmagic.Revoker)
		if !ok {
			return errNoRevoker
		}
		chain := encodeCertificate(c.Leaf)
		return i.Revoke(ctx, certmagic.CertificateResource{
			SANs: []string{c.Name}, CertificatePEM: chain, PrivateKeyPEM: []byte(c.Key), IssuerData: c.Data,
		}, acme.ReasonKeyCompromise)
	}
	// The certificate's own key comes first: then the authority refuses this key for ever. JWS knows
	// no other kinds of keys.
	err = errNoKey
	key, bad := decodeKey([]byte(c.Key))
	_, isRSA := key.(*rsa.PrivateKey)
	if _, isECDSA := key.(*ecdsa.PrivateKey); bad == nil && (isECDSA || isRSA) {
		err = client.RevokeCertificate(ctx, acme.Account{}, leaf, key, acme.ReasonKeyCompromise)
		if p, ok := problem(err); !ok || p.Type == acme.ProblemTypeAlreadyRevoked {
			return unlessRevoked(err, p)
		}
	}
	accounts, bad := r.accountsOf(ctx, c.Issuer)
	if bad != nil {
		return errors.Join(err, bad)
	}
	for _, a := range accounts {
		err = client.RevokeCertificate(ctx, a, leaf, nil, acme.ReasonKeyCompromise)
		if p, ok := problem(err); !ok || p.Type == acme.ProblemTypeAlreadyRevoked {
			return unlessRevoked(err, p)
		}
	}
	return err
}

// hasExpired reports whether a certificate has expired for certain.
func (r *Rekeyer) hasExpired(leaf *x509.Certificate) bool {
	return r.Clocks.Check(clocks.MaxOffset) == nil && r.Clocks.Now().After(leaf.NotAfter)
}

// unlessRevoked returns err, the answer to a revocation, unless it says that there was one before.
func unlessRevoked(err error, p acme.Problem) error {
	if p.Type == acme.ProblemTypeAlreadyRevoked {
		return nil
	}
	return err
}

// accountsOf returns the accounts that the storage has for an authority.
func (r *Rekeyer) accountsOf(ctx context.Context, authority string) ([]acme.Account, error) {
	keys, err := r.list(ctx, "acme/"+authority+"/users", true)
	if err != nil {
		return nil, err
	}
	var out []acme.Account
	for _, key := range keys {
		stem, ok := strings.CutSuffix(key, ".key")
		if !ok {
			continue
		}
		var a acme.Account
		private, err := r.Shared.Load(ctx, key)
		if err == nil {
			err = r.load(ctx, stem+".json", &a)
		}
		if err == nil {
			a.PrivateKey, err = decodeKey(private)
		}
		if err == nil {
			out = append(out, a)
		}
	}
	return out, nil
}
