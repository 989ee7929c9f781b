package devca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

const (
	DevRootRecord = "flotilla/development-ca.pem" // certificate and key in one value, so that they are written together
	DevRootLife   = 10 * 365 * 24 * time.Hour
	DevLeafLife   = 7 * 24 * time.Hour // renewed by certmagic when a third of it is left
	Backdate      = time.Hour          // for clients whose clock is behind
)

// Issuer is the private certificate authority of the development mode and of tests: a certmagic.Issuer that signs whatever name it is
// asked for, with a root that nobody trusts and whose key lies in the storage beside the certificates. It proves nothing
// about who controls a name, revokes nothing and keeps no record. It is not for serving anybody but the people at this machine,
// and its root belongs in no trust store.
type Issuer struct {
	Storage certmagic.Storage
}

// IssuerKey returns the part of storage names that tells this issuer's certificates from others'.
func (i *Issuer) IssuerKey() string { return keyspace.DevIssuer }

// Issue signs a certificate for the names and addresses in csr.
func (i *Issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("development CA: request: %w", err)
	}
	root, key, err := i.loadOrCreate(ctx)
	if err != nil {
		return nil, fmt.Errorf("development CA: %w", err)
	}
	now := time.Now()
	leaf := &x509.Certificate{
		SerialNumber:   NewSerial(),
		NotBefore:      now.Add(-Backdate),
		NotAfter:       now.Add(DevLeafLife),
		KeyUsage:       x509.KeyUsageDigitalSignature,
		ExtKeyUsage:    []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:       csr.DNSNames,
		IPAddresses:    csr.IPAddresses,
		EmailAddresses: csr.EmailAddresses,
		URIs:           csr.URIs,

		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, csr.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("development CA: %w", err)
	}
	return &certmagic.IssuedCertificate{Certificate: PEM("CERTIFICATE", der)}, nil
}

// Root returns the certificate that clients are to trust, and makes it if there is none yet.
func (i *Issuer) Root(ctx context.Context) (*x509.Certificate, error) {
	cert, _, err := i.loadOrCreate(ctx)
	if err != nil {
		return nil, fmt.Errorf("development CA: %w", err)
	}
	return cert, nil
}

func (i *Issuer) loadOrCreate(ctx context.Context) (*x509.Certificate, crypto.Signer, error) {
	if cert, key, err := i.load(ctx); !errors.Is(err, fs.ErrNotExist) {
		return cert, key, err
	}
	if err := i.Storage.Lock(ctx, keyspace.DevIssuer); err != nil {
		return nil, nil, err
	}
	defer i.Storage.Unlock(context.WithoutCancel(ctx), keyspace.DevIssuer) // an unlock that fails ends with this node's session
	if cert, key, err := i.load(ctx); !errors.Is(err, fs.ErrNotExist) {
		return cert, key, err // another node was faster
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	root := &x509.Certificate{
		SerialNumber: NewSerial(),
		Subject:      pkix.Name{CommonName: "flotilla development CA", Organization: []string{"private: trust it on no other machine"}},
		NotBefore:    now.Add(-Backdate),
		NotAfter:     now.Add(DevRootLife),
		KeyUsage:     x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:         true,

		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	if err := i.Storage.Store(ctx, DevRootRecord, append(PEM("CERTIFICATE", der), PEM("PRIVATE KEY", keyDER)...)); err != nil {
		return nil, nil, err
	}
	return i.load(ctx)
}

func (i *Issuer) load(ctx context.Context) (*x509.Certificate, crypto.Signer, error) {
	text, err := i.Storage.Load(ctx, DevRootRecord)
	if err != nil {
		return nil, nil, err
	}
	certBlock, rest := pem.Decode(text)
	keyBlock, _ := pem.Decode(rest)
	if certBlock == nil || keyBlock == nil {
		return nil, nil, fmt.Errorf("%s is not two PEM blocks", DevRootRecord)
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", DevRootRecord, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", DevRootRecord, err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("%s holds a %T, which cannot sign", DevRootRecord, parsed)
	}
	return cert, key, nil
}

// NewSerial returns a serial number of 127 random bits (RFC 5280, 4.1.2.2).
func NewSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

func PEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
