package importer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/records"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

// keyPEM returns a private key.
func keyPEM(t *testing.T) (*ecdsa.PrivateKey, string) {
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

// certificate returns the three files of a certificate, by extension.
func certificate(t *testing.T, until time.Time) map[string]string {
	t.Helper()
	key, text := keyPEM(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"a.example"},
		NotBefore:    until.Add(-90 * 24 * time.Hour),
		NotAfter:     until,
	}, &x509.Certificate{Subject: pkix.Name{CommonName: "test authority"}}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		".key":  text,
		".crt":  string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		".json": `{"sans":["a.example"]}`,
	}
}

// recordsOf returns records of files in a directory, by extension.
func recordsOf(dir, base string, files map[string]string) []remote.Record {
	var all []remote.Record
	for ext, value := range files {
		all = append(all, remote.Record{Key: dir + "/" + base + ext, Value: []byte(value)})
	}
	return all
}

func TestCheckCertificate(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	good, other := certificate(t, now.Add(time.Hour)), certificate(t, now.Add(time.Hour))
	with := func(ext, value string) map[string]string {
		m := maps.Clone(good)
		m[ext] = value
		return m
	}
	without := func(ext string) map[string]string {
		m := maps.Clone(good)
		delete(m, ext)
		return m
	}
	for name, test := range map[string]struct {
		files  map[string]string
		remark string
		err    string // empty: it is taken
	}{
		"good": {files: good},
		"expired": {
			files:  certificate(t, now.Add(-time.Hour)),
			remark: "the certificate expired on 2026-11-25",
		},
		"a chain": {files: with(".crt", good[".crt"]+other[".crt"])},
		"no key": {
			files: without(".key"),
			err:   "a.example.key is missing, and a certificate is its three files together",
		},
		"no JSON": {files: without(".json"), err: "a.example.json is missing"},
		"another key": {
			files: with(".key", other[".key"]),
			err:   "the private key does not belong to the certificate, or is malformed (tls: private key does not match",
		},
		"malformed key": {
			files: with(".key", "no key"),
			err:   "the private key does not belong to the certificate, or is malformed (tls: failed to find any PEM data",
		},
		"no PEM": {
			files: with(".crt", "no certificate"),
			err:   "the certificate is malformed (the file has no PEM certificate)",
		},
		"malformed PEM": {
			files: with(".crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
			err:   "the certificate is malformed (x509: ",
		},
		"malformed chain": {
			files: with(".crt", good[".crt"]+"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
			err:   "the certificate is malformed (x509: ",
		},
		"malformed JSON": {files: with(".json", "{"), err: "a.example.json is malformed ("},
	} {
		t.Run(name, func(t *testing.T) {
			const dir = "certificates/i/a.example"
			remark, err := check(&Group{Kind: records.Certificate, Name: dir}, recordsOf(dir, "a.example", test.files), now)
			if remark != test.remark {
				t.Errorf("remark %q, want %q", remark, test.remark)
			}
			wantError(t, err, test.err)
		})
	}
}

func TestCheckAccount(t *testing.T) {
	_, key := keyPEM(t)
	for name, test := range map[string]struct {
		files map[string]string
		err   string
	}{
		"good": {files: map[string]string{".key": key, ".json": "{}"}},
		"bad JSON": {
			files: map[string]string{".key": key, ".json": "\xff"},
			err:   "a.json is malformed (it is not JSON)",
		},
		"bad key": {
			files: map[string]string{".key": "no key", ".json": "{}"},
			err:   "a.key is malformed (it is not a PEM private key)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			const dir = "acme/i/users/a@a.example"
			_, err := check(&Group{Kind: records.Account, Name: dir}, recordsOf(dir, "a", test.files), time.Time{})
			wantError(t, err, test.err)
		})
	}
}

// wantError checks the beginning of an error's text. Empty means that there must be none.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("it is refused: %v", err)
	case want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)):
		t.Errorf("it says %v, want %s", err, want)
	}
}
