package certs

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/slogbridge"
)

const (
	sweepEvery = 10 * time.Minute
	sweepAge   = time.Hour           // what an order left behind is deleted when it has been there, the same, for so long
	cleanFirst = time.Hour           // after the start, so that a role that wanders about does not clean all the time
	cleanEvery = 24 * time.Hour      // then
	cleanLimit = 10 * time.Minute    // for one time
	cleanGrace = 14 * 24 * time.Hour // expired certificates are kept for so long
)

// maintain keeps the storage free of what nobody needs any more, until ctx is done: tokens of challenges and test records that an
// interrupted order left behind, expired certificates, old OCSP staples. One node of the cluster does it at a time.
func (c *Certs) Maintain(ctx context.Context) {
	storage := c.Shared // which has old certificates still if each node has not always had its own
	s := &sweeper{storage: storage, log: c.Log, seen: make(map[string]sighting)}
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	clean := time.Now().Add(cleanFirst)
	for {
		s.sweep(ctx)
		c.pauses.Sweep(ctx)
		if c.Clocks.Check(clocks.MaxOffset) == nil {
			s.sweepAside(ctx, c.Clocks.Now())
		}
		if !time.Now().Before(clean) {
			c.clean(ctx, storage)
			clean = time.Now().Add(cleanEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// cleanOwn is maintain for what this node has for itself, until ctx is done.
func (c *Certs) CleanOwn(ctx context.Context) {
	for pause := cleanFirst; c.perNode(); pause = cleanEvery {
		select {
		case <-time.After(pause):
			c.clean(ctx, c.Storage)
		case <-ctx.Done():
			return
		}
	}
}

// sweeper deletes what orders leave behind. It goes by its own watch, for the times in the storage are those of other nodes' clocks:
// nothing is deleted that it has not seen for an hour.
type sweeper struct {
	storage certmagic.Storage
	log     *slog.Logger
	seen    map[string]sighting
}

// sighting is what a sweeper knows of a record.
type sighting struct {
	sum   [sha256.Size]byte
	since time.Time
}

// sweep looks once. Records that cannot be read or deleted are left to the next time.
func (s *sweeper) sweep(ctx context.Context) {
	now := time.Now()
	seen := make(map[string]sighting)
	for _, key := range s.leftovers(ctx) {
		value, err := s.storage.Load(ctx, key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			s.complain(ctx, "a leftover of an order cannot be read", key, err)
			if old, ok := s.seen[key]; ok {
				seen[key] = old
			}
			continue
		}
		this := sighting{sha256.Sum256(value), now}
		if old, ok := s.seen[key]; ok && old.sum == this.sum {
			this.since = old.since
		}
		if now.Sub(this.since) < sweepAge {
			seen[key] = this
			continue
		}
		if err := s.storage.Delete(ctx, key); err != nil {
			s.complain(ctx, "a leftover of an order cannot be deleted", key, err)
			seen[key] = this
			continue
		}
		s.log.Info("a leftover of an order was deleted", "key", key)
	}
	s.seen = seen
}

// leftovers returns the records that orders make for their time alone. certmagic itself never deletes those of an order that
// was interrupted.
func (s *sweeper) leftovers(ctx context.Context) []string {
	keys := s.list(ctx, "acme")
	var out []string
	for _, issuer := range keys {
		out = append(out, s.list(ctx, issuer+"/challenge_tokens")...)
	}
	for _, key := range s.list(ctx, "") {
		if strings.HasPrefix(key, "rw_test_") {
			out = append(out, key)
		}
	}
	return out
}

// list returns what is in a directory; nothing if it is not there.
func (s *sweeper) list(ctx context.Context, dir string) []string {
	keys, err := s.storage.List(ctx, dir, false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.complain(ctx, "the storage cannot be searched for leftovers of orders", dir, err)
	}
	return keys
}

func (s *sweeper) complain(ctx context.Context, what, key string, err error) {
	if ctx.Err() == nil {
		s.log.Warn(what+"; will try again", "key", key, "error", err)
	}
}

// clean has certmagic delete expired certificates and OCSP staples.
func (c *Certs) clean(ctx context.Context, storage certmagic.Storage) {
	c.cleanWith(ctx, storage, cleanGrace)
}

// cleanWith is clean, with another time for which what has expired is kept.
func (c *Certs) cleanWith(ctx context.Context, storage certmagic.Storage, grace time.Duration) {
	if c.Clocks.Check(clocks.MaxOffset) != nil {
		return // what has expired by this clock may be in use
	}
	ctx, cancel := context.WithTimeout(ctx, cleanLimit)
	defer cancel()
	for _, key := range unreadable(ctx, storage) {
		c.Log.Warn("a certificate in the storage cannot be read, and cleaning stops there; "+
			"delete the directory that it is in, and a new one will be ordered if it is needed", "key", key)
	}
	err := certmagic.CleanStorage(ctx, storage, certmagic.CleanStorageOptions{
		Logger:                 slogbridge.NewZap(c.Log).Named("clean"),
		OCSPStaples:            true,
		ExpiredCerts:           true,
		ExpiredCertGracePeriod: grace,
	})
	if err != nil && ctx.Err() == nil {
		c.Log.Warn("the storage was not cleaned; will try again tomorrow", "error", err)
	}
}

// unreadable returns the certificates that certmagic stops cleaning at, by its own rule.
func unreadable(ctx context.Context, storage certmagic.Storage) []string {
	keys, err := storage.List(ctx, "certificates", true)
	if err != nil {
		return nil // there are none yet, or CleanStorage says what is wrong
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
