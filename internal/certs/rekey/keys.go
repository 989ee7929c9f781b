package rekey

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"

	"github.com/caddyserver/certmagic"
)

var errUnreadable = errors.New("the certificate cannot be read")

// hashOf returns the SHA-256 of b, in hexadecimal digits.
func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// encodeCertificate returns the PEM of a certificate.
func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// decodeLeaf returns the first certificate of a chain.
func decodeLeaf(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errUnreadable
	}
	return x509.ParseCertificate(block.Bytes)
}

// decodeKey returns a private key. certmagic's decoder wants a PEM block.
func decodeKey(text []byte) (crypto.Signer, error) {
	if block, _ := pem.Decode(text); block == nil {
		return nil, errors.New("the key is not PEM")
	}
	return certmagic.PEMDecodePrivateKey(text)
}

// spkiOf returns the hash of the public key of a private one, as of a certificate.
func spkiOf(key crypto.Signer) string {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return ""
	}
	return hashOf(der)
}
