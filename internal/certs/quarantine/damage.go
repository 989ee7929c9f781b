package quarantine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// damage returns what is wrong with the records of name's certificate, and these records. A record
// that is missing is not damage.
func (q *Quarantine) damage(ctx context.Context, name string) (bad error, records []state.Record, err error) {
	subject := q.Subject(name)
	for _, i := range q.Certmagic.Issuers {
		crt := certmagic.StorageKeys.SiteCert(i.IssuerKey(), certmagic.StorageKeys.Safe(subject))
		stem := strings.TrimSuffix(crt, ".crt")
		var parts []state.Record
		for _, ext := range []string{".key", ".crt", ".json"} {
			value, err := q.Certmagic.Storage.Load(ctx, stem+ext)
			if errors.Is(err, fs.ErrNotExist) {
				break
			}
			if err != nil {
				return nil, nil, err
			}
			parts = append(parts, state.Record{Key: stem + ext, Value: value})
		}
		if len(parts) < 3 {
			continue
		}
		if bad := badCertificate(subject, parts[0].Value, parts[1].Value, parts[2].Value); bad != nil {
			return bad, parts, nil
		}
	}
	return nil, nil, nil
}

// badCertificate returns what is wrong with a certificate as certmagic stores it.
func badCertificate(name string, key, chain, meta []byte) error {
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return err
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return err
		}
	}
	if _, err := certmagic.PEMDecodePrivateKey(key); err != nil {
		return err
	}
	if !slices.Contains(pair.Leaf.DNSNames, name) {
		if err := pair.Leaf.VerifyHostname(name); err != nil {
			return err
		}
	}
	var resource certmagic.CertificateResource
	if err := json.Unmarshal(meta, &resource); err != nil {
		return fmt.Errorf("its metadata: %w", err)
	}
	return nil
}

// badAccount returns the records of the account in a directory, and what is wrong with them.
func (q *Quarantine) badAccount(ctx context.Context, user string) (records []state.Record, bad error) {
	name, _, _ := strings.Cut(path.Base(user), "@") // certmagic's rule
	stem := user + "/" + name
	for _, ext := range []string{".json", ".key"} {
		value, err := q.Certmagic.Storage.Load(ctx, stem+ext)
		if err != nil {
			return nil, nil // certmagic takes it for missing, or the order reports the error
		}
		records = append(records, state.Record{Key: stem + ext, Value: value})
	}
	var account acme.Account
	if err := json.Unmarshal(records[0].Value, &account); err != nil {
		return records, err
	}
	if block, _ := pem.Decode(records[1].Value); block == nil {
		return records, errors.New("its key is not PEM")
	}
	if _, err := certmagic.PEMDecodePrivateKey(records[1].Value); err != nil {
		return records, fmt.Errorf("its key: %w", err)
	}
	return records, nil
}
