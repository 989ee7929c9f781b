package peertls

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"net/url"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/seal"
)

func certFrom() time.Time  { return time.Unix(0, 0).UTC() }
func certUntil() time.Time { return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }

// Now is the time as of which certificates are verified, always the same.
func Now() time.Time { return time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) }

const (
	issuerPrefix = "flotilla " // of the authority's common name; the key ID follows
	sniPrefix    = "k-"        // of the server name that a client asks for; the key ID follows
	sniSuffix    = ".flotilla"
)

// Identity is the certificate of a node or bearer under one secret, and the authority that it
// trusts. It is immutable.
type Identity struct {
	kid  seal.KeyID
	ca   *x509.Certificate // derived from the secret
	pool *x509.CertPool    // of ca alone
	leaf tls.Certificate
}

// NewNode makes the identity of a node for one run of its process. The key is never stored. An
// empty incarnation is left out.
func NewNode(secret seal.Secret, id, incarnation string) (*Identity, error) {
	peer := Peer{ID: id, Incarnation: incarnation}
	return sign(secret, peer.uri(), x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

// NewBearer makes the identity of the bearer of a death notice.
func NewBearer(secret seal.Secret, n Notice) (*Identity, error) {
	peer := Peer{ID: RandomID(), Notice: &n}
	return sign(secret, peer.uri(), x509.ExtKeyUsageClientAuth)
}

// sign derives the authority of a secret and issues a certificate. An Ed25519 signature depends on
// nothing but the key and the text, so every node derives the same authority, byte for byte.
func sign(secret seal.Secret, name *url.URL, usage ...x509.ExtKeyUsage) (*Identity, error) {
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
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return &Identity{kid: kid, ca: ca, pool: pool, leaf: cert}, nil
}

// KeyID returns the ID of the secret behind the identity.
func (i *Identity) KeyID() seal.KeyID { return i.kid }

// Certificate returns the certificate with its key, for a configuration of TLS.
func (i *Identity) Certificate() tls.Certificate { return i.leaf }

// Export returns the authority and the certificate in DER, and the seed of the key: all that
// another process needs to connect with this identity.
func (i *Identity) Export() (ca, cert, seed []byte) {
	return i.ca.Raw, i.leaf.Certificate[0], i.leaf.PrivateKey.(ed25519.PrivateKey).Seed()
}

// verify reports whether cert was signed by the authority of i and is allowed for usage.
func (i *Identity) verify(cert *x509.Certificate, usage x509.ExtKeyUsage) error {
	_, err := cert.Verify(x509.VerifyOptions{Roots: i.pool, CurrentTime: Now(), KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

// keyOf returns the key ID that a certificate claims for its authority.
func keyOf(cert *x509.Certificate) (seal.KeyID, bool) {
	text, ok := strings.CutPrefix(cert.Issuer.CommonName, issuerPrefix)
	if !ok {
		return seal.KeyID{}, false
	}
	return parseKeyID(text)
}

// ServerName returns the server name that a client with this identity asks for.
func (i *Identity) ServerName() string { return sniPrefix + i.kid.String() + sniSuffix }

// KeyOfServerName returns the key ID in a server name that a client has asked for.
func KeyOfServerName(name string) (seal.KeyID, bool) {
	text, ok1 := strings.CutPrefix(name, sniPrefix)
	text, ok2 := strings.CutSuffix(text, sniSuffix)
	if !ok1 || !ok2 {
		return seal.KeyID{}, false
	}
	return parseKeyID(text)
}

func parseKeyID(text string) (kid seal.KeyID, ok bool) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(kid) {
		return kid, false
	}
	copy(kid[:], raw)
	return kid, kid.String() == text
}
