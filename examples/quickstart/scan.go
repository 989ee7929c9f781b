package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// needle is a text that must not be in any file of a node.
type needle struct {
	what  string
	bytes []byte
}

// finding is a needle that was found.
type finding struct {
	what string
	file string
}

// scanned is the result of a search.
type scanned struct {
	files    int
	bytes    int64
	findings []finding
}

// needles returns everything to look for: the names, the secret of the cluster, and the certificate
// and each private key in every form in which software writes them.
func needles(domain, email, secret string, leaf *x509.Certificate, keys map[string]string) ([]needle, error) {
	list := []needle{
		{"the domain", []byte(domain)},
		{"the domain in capitals", []byte(strings.ToUpper(domain))},
		{"the account's e-mail", []byte(email)},
		{"a PEM header", []byte("-----BEGIN ")},
		{"the secret's text", []byte(secret)},
		{"the secret's text in capitals", []byte(strings.ToUpper(secret))},
	}
	raw, err := rawSecret(secret)
	if err != nil {
		return nil, err
	}
	list = append(list, forms("the secret", raw)...)
	list = append(list, forms("the certificate", leaf.Raw)...)
	matched := false
	for name, text := range keys {
		what := "the key " + filepath.Base(name)
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			return nil, fmt.Errorf("%s in storage is not PEM", name)
		}
		list = append(list, forms(what, block.Bytes)...)
		list = append(list, needle{what + ", a line of its PEM", []byte(strings.Split(text, "\n")[1])})
		key, err := parseKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		scalar, err := key.Bytes()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, forms(what+", its scalar", scalar)...)
		matched = matched || key.PublicKey.Equal(leaf.PublicKey)
	}
	if !matched {
		return nil, errors.New("no private key in storage belongs to the served certificate, so the search would prove nothing")
	}
	return list, nil
}

// forms returns the needles for b as it is, in hexadecimal and in base64. Base64 depends on the
// position of b within three bytes, except for its middle part: the needle is that part, for each
// position.
func forms(what string, b []byte) []needle {
	list := []needle{
		{what, b},
		{what + " in hex", []byte(hex.EncodeToString(b))},
		{what + " in HEX", []byte(strings.ToUpper(hex.EncodeToString(b)))},
	}
	for shift := range 3 {
		for _, enc := range []struct {
			name string
			*base64.Encoding
		}{{"base64", base64.StdEncoding}, {"base64url", base64.URLEncoding}} {
			text := enc.EncodeToString(append(make([]byte, shift), b...))
			text = text[4 : len(text)-4] // the ends contain bits of the neighbours
			name := fmt.Sprintf("%s in %s, shifted by %d", what, enc.name, shift)
			list = append(list, needle{name, []byte(text)})
		}
	}
	return list
}

// rawSecret returns the 32 bytes of a secret. They follow the first underscore of its text, in
// base32.
func rawSecret(text string) ([]byte, error) {
	_, body, _ := strings.Cut(strings.ToUpper(text), "_")
	const chars = 52 // 32 bytes
	if len(body) < chars {
		return nil, errors.New("the text of the secret is too short")
	}
	return base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(body[:chars])
}

// parseKey reads an ECDSA key in either of the two forms of PEM files.
func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T, not ECDSA", parsed)
	}
	return key, nil
}

// scan searches the names and the contents of all files below dir.
func scan(dir string, list []needle) (scanned, error) {
	var s scanned
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted meanwhile: a temporary file, or an old snapshot
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		for _, n := range list {
			if bytes.Contains([]byte(name), n.bytes) {
				s.findings = append(s.findings, finding{n.what + ", in a file's name", path})
			}
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		s.files++
		s.bytes += int64(len(data))
		for _, n := range list {
			if bytes.Contains(data, n.bytes) {
				s.findings = append(s.findings, finding{n.what, path})
			}
		}
		return nil
	})
	return s, err
}

// control proves that scan finds needles. It puts each needle into a temporary file among random
// bytes, and returns those that scan did not find. It removes the files.
func control(list []needle) (missed []string, err error) {
	tmp, err := os.MkdirTemp("", "flotilla-quickstart-control-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	for i, n := range list {
		data := slices.Concat(noise(uint64(i), 5000+i), n.bytes, noise(uint64(i)+1, 3000))
		if err := os.WriteFile(filepath.Join(tmp, fmt.Sprintf("file-%d", i)), data, 0o600); err != nil {
			return nil, err
		}
	}
	s, err := scan(tmp, list)
	if err != nil {
		return nil, err
	}
	for i, n := range list {
		want := finding{n.what, filepath.Join(tmp, fmt.Sprintf("file-%d", i))}
		if !slices.Contains(s.findings, want) {
			missed = append(missed, n.what)
		}
	}
	return missed, nil
}

// noise returns n bytes that look random.
func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
