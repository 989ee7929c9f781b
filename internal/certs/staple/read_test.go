package staple

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

func FuzzRead(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		f.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		f.Fatal(err)
	}
	good, err := ocsp.CreateResponse(cert, cert, ocsp.Response{SerialNumber: cert.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(time.Minute), Certificate: cert}, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{})
	f.Add(good[:len(good)/2])
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := read(raw, cert, cert, now.Add(time.Second))
		if err == nil && (r.Status != ocsp.Good || !bytes.Equal(r.TBSResponseData, mustParse(t, good, cert).TBSResponseData)) {
			t.Errorf("took %x", raw)
		}
	})
}

func mustParse(t *testing.T, raw []byte, issuer *x509.Certificate) *ocsp.Response {
	t.Helper()
	r, err := ocsp.ParseResponse(raw, issuer)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
