package certs

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"golang.org/x/crypto/ocsp"
)

// revokedRest is between two tries of the cluster to replace a revoked certificate, and before the new one is replaced in its turn.
const revokedRest = time.Hour

// replace has a revoked certificate replaced, once in a while, by the node that has the lock. It goes on being served until then.
func (c *Certs) replace(s *stapled, r *ocsp.Response) {
	name, storage := s.Names[0], c.config.Storage
	if c.Clocks.Check(clocks.MaxOffset) != nil {
		return // by this clock the new one may be long there
	}
	ctx, cancel := context.WithTimeout(c.life, stapleLimit)
	defer cancel()
	for _, i := range c.config.Issuers {
		place := certmagic.StorageKeys.SiteCert(i.IssuerKey(), c.site(name))
		text, err := storage.Load(ctx, place)
		if block, _ := pem.Decode(text); err != nil || block == nil || !bytes.Equal(block.Bytes, s.Leaf.Raw) {
			continue // another one is there already
		}
		info, err := storage.Stat(ctx, place)
		switch {
		case err != nil:
		case time.Since(info.Modified) < revokedRest:
			err = errors.New("it was issued less than an hour ago")
		case r.RevocationReason == ocsp.KeyCompromise:
			// What misses its key is ordered anew, see lookAt; the mark has session tickets dropped.
			key := certmagic.StorageKeys.SitePrivateKey(i.IssuerKey(), c.site(name))
			var pair []byte
			if pair, err = storage.Load(ctx, key); err == nil {
				err = storage.Store(ctx, key+".compromised", pair)
				err = errors.Join(err, storage.Delete(ctx, key))
			}
		default:
			err = c.order(c.life, name, true, attempt{})
		}
		if err != nil && c.life.Err() == nil {
			c.Log.Warn("the revoked certificate was not replaced; will try again", "domain", name, "error", err, "in", revokedRest)
		}
	}
}
