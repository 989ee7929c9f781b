package wire

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

// Trust comes from the secret, not from time: a wrong clock must not split the cluster. So certificates are valid from 1970 to
// 9999 and always verified as of the same day.
func certFrom() time.Time  { return time.Unix(0, 0).UTC() }
func certUntil() time.Time { return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }
func certNow() time.Time   { return time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) }

const (
	issuerPrefix = "flotilla " // of the authority's common name; the key ID follows
	sniPrefix    = "k-"        // of the server name that a dialler asks for; the key ID follows
	sniSuffix    = ".flotilla"
)

// identity is what a node shows and believes under one secret. It is immutable.
type identity struct {
	kid  seal.KeyID
	pool *x509.CertPool // the authority derived from the secret
	ca   *x509.Certificate
	leaf tls.Certificate
}

// newIdentity derives the authority of a secret and signs a certificate for a process of node id, with a key that is never stored.
//
// An Ed25519 signature depends on nothing but the key and the text, so every node derives the same authority byte for byte.
func newIdentity(secret seal.Secret, id, process string) (*identity, error) {
	name := "/" + id
	if process != "" {
		name += "/" + process
	}
	return signed(secret, &url.URL{Scheme: "flotilla", Host: "node", Path: name}, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

// signed is newIdentity for any name and usage.
func signed(secret seal.Secret, name *url.URL, usage ...x509.ExtKeyUsage) (*identity, error) {
	kid := secret.ID()
	seed := secret.CASeed()
	caKey := ed25519.NewKeyFromSeed(seed[:])
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: issuerPrefix + kid.String()},
		NotBefore:             certFrom(),
		NotAfter:              certUntil(),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, caKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	der, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "flotilla node"},
		URIs:         []*url.URL{name},
		NotBefore:    certFrom(),
		NotAfter:     certUntil(),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  usage,
	}, ca, public, caKey)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return &identity{kid: kid, pool: pool, ca: ca, leaf: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}, nil
}

// verify reports whether cert was signed by the authority of i and is allowed for usage.
func (i *identity) verify(cert *x509.Certificate, usage x509.ExtKeyUsage) error {
	_, err := cert.Verify(x509.VerifyOptions{Roots: i.pool, CurrentTime: certNow(), KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

// nodeOf returns the node ID in a certificate that was verified, and which process of the node it is,
// if it says so.
func nodeOf(cert *x509.Certificate) (id, process string, err error) {
	if len(cert.URIs) != 1 {
		return "", "", errors.New("the certificate does not name one node")
	}
	u := cert.URIs[0]
	name, ok := strings.CutPrefix(u.Path, "/")
	id, process, _ = strings.Cut(name, "/")
	if u.Scheme != "flotilla" || u.Host != "node" || !ok || !validID(id) {
		return "", "", errors.New("the certificate does not name a node")
	}
	return id, process, nil
}

// kidOf returns the key ID that a certificate claims for its authority.
func kidOf(cert *x509.Certificate) (seal.KeyID, bool) {
	text, ok := strings.CutPrefix(cert.Issuer.CommonName, issuerPrefix)
	if !ok {
		return seal.KeyID{}, false
	}
	return parseKid(text)
}

// serverName is what a dialler with secret kid asks for.
func serverName(kid seal.KeyID) string { return sniPrefix + kid.String() + sniSuffix }

// kidOfName is the inverse of serverName.
func kidOfName(name string) (seal.KeyID, bool) {
	text, ok1 := strings.CutPrefix(name, sniPrefix)
	text, ok2 := strings.CutSuffix(text, sniSuffix)
	if !ok1 || !ok2 {
		return seal.KeyID{}, false
	}
	return parseKid(text)
}

func parseKid(text string) (kid seal.KeyID, ok bool) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(kid) {
		return kid, false
	}
	copy(kid[:], raw)
	return kid, kid.String() == text
}

// clientTLS returns the configuration for dialling addr with identity id. It verifies the authority, and that the certificate is that of the
// node want unless that is empty. That is done in the handshake, so that another node which has the address now never takes the connection for one to itself: it
// would close the one that it has for this node's notes.
func clientTLS(id *identity, addr, protocol, want string) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Time:         certNow,
		ServerName:   serverName(id.kid),
		NextProtos:   []string{protocol},
		Certificates: []tls.Certificate{id.leaf},
		// All notes that wait go in one record. For the other protocols the default is right.
		DynamicRecordSizingDisabled: protocol == alpnNote,
		InsecureSkipVerify:          true, // there are no host names; VerifyConnection verifies the chain
		VerifyConnection: func(s tls.ConnectionState) error {
			cert := s.PeerCertificates[0]
			err := id.verify(cert, x509.ExtKeyUsageServerAuth)
			if err == nil && want != "" {
				got, _, err := nodeOf(cert)
				if err == nil && got != want {
					err = &WrongNodeError{Addr: addr, Want: want, Got: got}
				}
				return err
			}
			if err == nil {
				return nil
			}
			if kid, ok := kidOf(cert); ok && kid != id.kid {
				return &WrongSecretError{Addr: addr, Want: id.kid, Have: kid}
			}
			return fmt.Errorf("who answers at %s is not a node of a cluster: %w", addr, err)
		},
	}
}

// serverTLS returns the configuration for one inbound connection. sni receives the server name asked for.
func (p *Port) serverTLS(sni *string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Time:                   certNow,
		NextProtos:             []string{alpnRaft, alpnCall, alpnNote},
		SessionTicketsDisabled: true,
		ClientAuth:             tls.RequireAnyClientCert,
		// A dialler whose secret we have not got is shown our first certificate: it reads our key ID there.
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			*sni = hello.ServerName
			if kid, ok := kidOfName(hello.ServerName); ok {
				for _, id := range p.ids {
					if id.kid == kid {
						return &id.leaf, nil
					}
				}
			}
			return &p.ids[0].leaf, nil
		},
		VerifyConnection: func(s tls.ConnectionState) error {
			var err error
			for _, id := range p.ids {
				if err = id.verify(s.PeerCertificates[0], x509.ExtKeyUsageClientAuth); err == nil {
					return nil
				}
			}
			return fmt.Errorf("the certificate was not made with the secret of this cluster: %w", err)
		},
	}
}
