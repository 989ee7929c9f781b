package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/crypto/nacl/secretbox"
)

const issuer = "acme-v02.api.letsencrypt.org-directory"

// certificate returns the three records of a certificate for a site.
func certificate(t *testing.T, site string, until time.Time) map[string]string {
	t.Helper()
	key, keyPEM := privateKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: site},
		DNSNames:     []string{site},
		NotBefore:    until.Add(-90 * 24 * time.Hour),
		NotAfter:     until,
	}, &x509.Certificate{Subject: pkix.Name{CommonName: "test authority"}}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := json.Marshal(certmagic.CertificateResource{SANs: []string{site}})
	if err != nil {
		t.Fatal(err)
	}
	k := certmagic.StorageKeys
	return map[string]string{
		k.SitePrivateKey(issuer, site): keyPEM,
		k.SiteCert(issuer, site):       string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		k.SiteMeta(issuer, site):       string(meta),
	}
}

// account returns the two records of an ACME account.
func account(t *testing.T, email string) map[string]string {
	t.Helper()
	_, key := privateKey(t)
	user := "acme/" + issuer + "/users/" + email + "/" + strings.Split(email, "@")[0]
	return map[string]string{user + ".key": key, user + ".json": `{"status":"valid"}`}
}

func privateKey(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(text)
}

// sealed returns an object as the S3 storages write it.
func sealed(key *[32]byte, value string) string {
	nonce := [24]byte{1, 2, 3, byte(len(value))}
	return string(secretbox.Seal(nonce[:], []byte(value), &nonce, key))
}
