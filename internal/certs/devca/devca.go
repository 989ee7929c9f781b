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
	// the root and its key in one value, so that they are written together
	RootRecord = "flotilla/development-ca.pem"
	RootLife   = 10 * 365 * 24 * time.Hour // of the root's certificate
	LeafLife   = 7 * 24 * time.Hour        // renewed by certmagic when a third of it is left
	Backdate   = time.Hour                 // for clients whose clock is behind
)

// Issuer is the authority: a certmagic.Issuer whose root and key are in Storage. Its methods are
// safe for concurrent use.
type Issuer struct {
	Storage certmagic.Storage // of the root and its key
}

// IssuerKey returns the part of storage keys that distinguishes this issuer's certificates.
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
		NotAfter:       now.Add(LeafLife),
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

// Root returns the certificate that clients must trust, and makes it if there is none yet.
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
	// A lock that is not given back ends with this node's session.
	defer i.Storage.Unlock(context.WithoutCancel(ctx), keyspace.DevIssuer)
	if cert, key, err := i.load(ctx); !errors.Is(err, fs.ErrNotExist) {
		return cert, key, err // another node was faster
	}
	if err := i.create(ctx); err != nil {
		return nil, nil, err
	}
	return i.load(ctx)
}

// Replace makes another root unless the present one is another than the one that must go. old
// reports whether a certificate, in DER, is that one.
func (i *Issuer) Replace(ctx context.Context, old func(der []byte) bool) error {
	if err := i.Storage.Lock(ctx, keyspace.DevIssuer); err != nil {
		return fmt.Errorf("development CA: %w", err)
	}
	// A lock that is not given back ends with this node's session.
	defer i.Storage.Unlock(context.WithoutCancel(ctx), keyspace.DevIssuer)
	root, _, err := i.load(ctx)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !old(root.Raw) {
		return nil
	}
	if err == nil {
		err = i.create(ctx)
	}
	if err != nil {
		return fmt.Errorf("development CA: %w", err)
	}
	return nil
}

// create stores a new root and its key. The lock is held.
func (i *Issuer) create(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	root := &x509.Certificate{
		SerialNumber: NewSerial(),
		Subject:      pkix.Name{CommonName: "flotilla development CA", Organization: []string{"private: trust it on no other machine"}},
		NotBefore:    now.Add(-Backdate),
		NotAfter:     now.Add(RootLife),
		KeyUsage:     x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:         true,

		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return i.Storage.Store(ctx, RootRecord, append(PEM("CERTIFICATE", der), PEM("PRIVATE KEY", keyDER)...))
}

func (i *Issuer) load(ctx context.Context) (*x509.Certificate, crypto.Signer, error) {
	text, err := i.Storage.Load(ctx, RootRecord)
	if err != nil {
		return nil, nil, err
	}
	certBlock, rest := pem.Decode(text)
	keyBlock, _ := pem.Decode(rest)
	if certBlock == nil || keyBlock == nil {
		return nil, nil, fmt.Errorf("%s is not two PEM blocks", RootRecord)
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", RootRecord, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", RootRecord, err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("%s holds a %T, which cannot sign", RootRecord, parsed)
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

// PEM returns der as a PEM block.
func PEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
