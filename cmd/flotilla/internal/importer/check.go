package importer

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/records"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

// check returns why a group is refused. The remark is about a group that is taken but should not be
// relied on.
func check(g *Group, all []remote.Record, now time.Time) (remark string, err error) {
	switch g.Kind {
	case records.Certificate:
		return checkCertificate(g.Name, all, now)
	case records.Account:
		return "", checkAccount(all)
	}
	return "", nil
}

// checkCertificate requires the three files of a certificate, in the directory dir, and that they
// fit together.
func checkCertificate(dir string, all []remote.Record, now time.Time) (remark string, err error) {
	parts := make(map[string][]byte)
	for _, r := range all {
		parts[path.Ext(r.Key)] = r.Value
	}
	for _, ext := range records.CertificateExts() {
		if _, ok := parts[ext]; !ok {
			return "", fmt.Errorf("%s%s is missing, and a certificate is its three files together", path.Base(dir), ext)
		}
	}
	leaf, err := parseChain(parts[".crt"])
	if err != nil {
		return "", err
	}
	if _, err := tls.X509KeyPair(parts[".crt"], parts[".key"]); err != nil {
		return "", fmt.Errorf("the private key does not belong to the certificate, or is malformed (%w)", err)
	}
	if err := json.Unmarshal(parts[".json"], new(certmagic.CertificateResource)); err != nil {
		return "", fmt.Errorf("%s.json is malformed (%w)", path.Base(dir), err)
	}
	if now.After(leaf.NotAfter) {
		remark = "the certificate expired on " + leaf.NotAfter.UTC().Format(time.DateOnly)
	}
	return remark, nil
}

// parseChain returns the first of a chain of PEM certificates. All must be well-formed.
func parseChain(text []byte) (*x509.Certificate, error) {
	var leaf *x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the certificate is malformed (%w)", err)
		}
		if leaf == nil {
			leaf = cert
		}
	}
	if leaf == nil {
		return nil, errors.New("the certificate is malformed (the file has no PEM certificate)")
	}
	return leaf, nil
}

// checkAccount requires that the files of an ACME account are well-formed.
func checkAccount(all []remote.Record) error {
	for _, r := range all {
		switch path.Ext(r.Key) {
		case ".json":
			if !json.Valid(r.Value) {
				return fmt.Errorf("%s is malformed (it is not JSON)", path.Base(r.Key))
			}
		case ".key":
			if _, err := certmagic.PEMDecodePrivateKey(r.Value); err != nil {
				return fmt.Errorf("%s is malformed (it is not a PEM private key)", path.Base(r.Key))
			}
		}
	}
	return nil
}
