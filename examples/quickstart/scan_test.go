package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/examples/internal/lab"
)

// testNeedles returns the needles of a new key, certificate and secret, and the key.
func testNeedles(t *testing.T) ([]needle, *ecdsa.PrivateKey, flotilla.Secret) {
	t.Helper()
	cert, err := lab.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	key := cert.PrivateKey.(*ecdsa.PrivateKey)
	secret := flotilla.NewSecret()
	list, err := needles(domain, email, secret.Encode(), cert.Leaf, map[string]string{"certificates/x/x.key": keyPEM(t, key)})
	if err != nil {
		t.Fatal(err)
	}
	return list, key, secret
}

func keyPEM(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

func TestScan(t *testing.T) {
	list, key, secret := testNeedles(t)
	scalar, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, file string
		data       []byte
		want       string // part of the finding; empty: none
	}{
		{"noise", "raft.db", noise(7, 100_000), ""},
		{"empty", "raft.db", nil, ""},
		{"domain", "raft.db", []byte("\x00\x01" + domain + "\x02"), "the domain"},
		{"domain in a name", "certificates/" + domain + ".crt", noise(8, 10), "in a file's name"},
		{"PEM", "x", []byte(keyPEM(t, key)), "PEM"},
		{"PEM without its first line", "x", []byte(strings.SplitN(keyPEM(t, key), "\n", 2)[1]), "a line of its PEM"},
		{"scalar", "deep/er/x", slices.Concat(noise(9, 77), scalar, noise(10, 5)), "its scalar"},
		{"PKCS 8, which holds the scalar", "x", pkcs8, "its scalar"},
		{"scalar in JSON", "x", []byte(`{"d":"` + base64.RawURLEncoding.EncodeToString(scalar) + `"}`), "base64"},
		{"scalar in the base64 of more", "x", []byte(base64.StdEncoding.EncodeToString(slices.Concat([]byte("1234"), scalar, []byte("567")))), "base64"},
		{"secret", "x", []byte("secret=" + secret.Encode()), "the secret's text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, tt.file)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := scan(dir, list)
			if err != nil {
				t.Fatal(err)
			}
			if got.files != 1 || got.bytes != int64(len(tt.data)) {
				t.Errorf("looked into %d files, %d bytes; want 1, %d", got.files, got.bytes, len(tt.data))
			}
			found := slices.ContainsFunc(got.findings, func(f finding) bool { return f.file == file && strings.Contains(f.what, tt.want) })
			if want := tt.want != ""; want && !found || !want && len(got.findings) > 0 {
				t.Errorf("found %v, want %q", got.findings, tt.want)
			}
		})
	}
}

func TestControl(t *testing.T) {
	list, _, _ := testNeedles(t)
	missed, err := control(list)
	if err != nil || len(missed) > 0 {
		t.Errorf("control missed %q, %v", missed, err)
	}
	for _, n := range list {
		if len(n.bytes) < 10 {
			t.Errorf("%s: %d bytes may be found by chance", n.what, len(n.bytes))
		}
	}
}

// The scan decodes the text of the secret itself. The library must decode the same bytes.
func TestRawSecret(t *testing.T) {
	secret := flotilla.NewSecret()
	a, err := rawSecret(secret.Encode())
	if err != nil || len(a) != 32 {
		t.Fatalf("got %d bytes, %v; want 32", len(a), err)
	}
	b, err := rawSecret(flotilla.NewSecret().Encode())
	if err != nil || bytes.Equal(a, b) {
		t.Errorf("two secrets have the same bytes, %v", err)
	}
	if _, err := rawSecret("flt1_short"); err == nil || !strings.Contains(err.Error(), "is too short") {
		t.Errorf("a short text was accepted: %v", err)
	}
}

func TestNeedlesWantsTheServedKey(t *testing.T) {
	cert, err := lab.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		keys map[string]string
		want string
	}{
		"no key":      {map[string]string{}, "no private key in storage belongs to the served certificate"},
		"another key": {map[string]string{"x.key": keyPEM(t, other)}, "no private key in storage belongs to the served certificate"},
		"no PEM":      {map[string]string{"x.key": "-"}, "x.key in storage is not PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := needles(domain, email, flotilla.NewSecret().Encode(), cert.Leaf, test.keys); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v, want %q in it", err, test.want)
			}
		})
	}
}
