package selfsign

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"time"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
)

// What such a certificate has.
const (
	CommonName = "flotilla: no certificate yet"
	Life       = 24 * time.Hour
	Left       = time.Hour // when less of Life is left, another one is made
)

// Marker returns the serial number of the self-signed certificates for name in a cluster.
func Marker(cluster, name string) *big.Int {
	mac := hmac.New(sha256.New, []byte(cluster))
	mac.Write([]byte(CommonName + "\x00" + name))
	sum := mac.Sum(nil)[:16]
	sum[0] = sum[0]&0x3f | 0x40 // positive, and always of the same length
	return new(big.Int).SetBytes(sum)
}

// Marks reports whether leaf has the marker of the cluster, for the name that is in it. asked
// stands in for a name if leaf has none.
func Marks(cluster, asked string, leaf *x509.Certificate) bool {
	switch {
	case len(leaf.DNSNames) > 0:
		asked = leaf.DNSNames[0]
	case len(leaf.IPAddresses) > 0:
		asked = leaf.IPAddresses[0].String()
	}
	return leaf.SerialNumber.Cmp(Marker(cluster, asked)) == 0
}

// New returns a certificate for name, a domain or an IP address, that is valid from about now on.
func New(name string, serial *big.Int, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: CommonName},
		NotBefore:    now.Add(-devca.Backdate),
		NotAfter:     now.Add(Life),
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
