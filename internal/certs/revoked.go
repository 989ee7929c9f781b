package certs

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"log/slog"
	"time"

	"github.com/caddyserver/certmagic"
	"golang.org/x/crypto/ocsp"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/certs/staple"
	"github.com/flotilla-ha/flotilla/internal/clocks"
)

const replaceTimeout = time.Minute // for looking into the storage

// replacer replaces revoked certificates.
type replacer struct {
	loader *loader
	orders *orderer
	life   context.Context
	log    *slog.Logger
}

// replace has a revoked certificate replaced, once in a while, by the node that has the lock. The
// certificate is served until then.
func (p *replacer) replace(old certmagic.Certificate, r *ocsp.Response) {
	name, storage := old.Names[0], p.loader.config.Storage
	if p.orders.clocks.Check(clocks.MaxOffset) != nil {
		return // the new one may have been there for a long time
	}
	ctx, cancel := context.WithTimeout(p.life, replaceTimeout)
	defer cancel()
	for _, i := range p.loader.config.Issuers {
		place := certmagic.StorageKeys.SiteCert(i.IssuerKey(), p.loader.site(name))
		text, err := storage.Load(ctx, place)
		if block, _ := pem.Decode(text); err != nil || block == nil || !bytes.Equal(block.Bytes, old.Leaf.Raw) {
			continue // there is another one already
		}
		info, err := storage.Stat(ctx, place)
		switch {
		case err != nil:
		case time.Since(info.Modified) < staple.RevokedRest:
			err = errors.New("it was issued less than an hour ago")
		case r.RevocationReason == ocsp.KeyCompromise:
			// A certificate without its key is ordered anew: see pusher.lookAt. The mark makes the
			// cluster drop its session tickets.
			key := certmagic.StorageKeys.SitePrivateKey(i.IssuerKey(), p.loader.site(name))
			var pair []byte
			if pair, err = storage.Load(ctx, key); err == nil {
				err = storage.Store(ctx, key+".compromised", pair)
				err = errors.Join(err, storage.Delete(ctx, key))
			}
		default:
			err = p.orders.order(p.life, name, true, attempt{again: true})
		}
		if err != nil && p.life.Err() == nil {
			p.log.Warn("the revoked certificate was not replaced; will try again",
				"event", event.OrderRefused, "domain", name, "error", err, "in", staple.RevokedRest)
		}
	}
}
