package sweep

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/slogbridge"
)

const cleanTimeout = 10 * time.Minute // for one time

// Clean has certmagic delete OCSP staples that are out of date and certificates that expired longer
// than grace ago. It does nothing while this node's clock is not to be relied on: what has expired
// by that clock may be in use.
func (s *Sweeper) Clean(ctx context.Context, storage certmagic.Storage, grace time.Duration) {
	if s.Clock() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cleanTimeout)
	defer cancel()
	for _, key := range unreadable(ctx, storage) {
		s.Log.Warn("a certificate in the storage cannot be read, and cleaning stops there; "+
			"delete the directory that it is in, and a new one will be ordered if it is needed", "key", key)
	}
	err := certmagic.CleanStorage(ctx, storage, certmagic.CleanStorageOptions{
		Logger:                 slogbridge.NewZap(s.Log).Named("clean"),
		OCSPStaples:            true,
		ExpiredCerts:           true,
		ExpiredCertGracePeriod: grace,
	})
	if err != nil && ctx.Err() == nil {
		s.Log.Warn("the storage was not cleaned; will try again tomorrow", "error", err)
	}
}

// unreadable returns the certificates at which certmagic stops cleaning, by certmagic's own rule.
func unreadable(ctx context.Context, storage certmagic.Storage) []string {
	keys, err := storage.List(ctx, "certificates", true)
	if err != nil {
		return nil // there are none yet, or CleanStorage reports the error
	}
	var bad []string
	for _, key := range keys {
		if !strings.HasSuffix(key, ".crt") {
			continue
		}
		text, err := storage.Load(ctx, key)
		if err != nil {
			continue
		}
		block, _ := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" {
			bad = append(bad, key)
		} else if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			bad = append(bad, key)
		}
	}
	return bad
}
