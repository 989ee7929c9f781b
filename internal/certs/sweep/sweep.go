package sweep

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
)

// When the storage is swept and cleaned.
const (
	Every      = 10 * time.Minute    // between sweeps
	CleanFirst = time.Hour           // after the start, so that frequent changes of the node do not clean all the time
	CleanEvery = 24 * time.Hour      // later on
	Grace      = 14 * 24 * time.Hour // for which expired certificates are kept

	leftoverAge = time.Hour // after which a leftover that has not changed is deleted
)

// Config is what a sweeper needs.
type Config struct {
	Shared certmagic.Storage // of the cluster
	Own    certmagic.Storage // what this node keeps for itself; nil: nothing
	// Clock returns an error while this node's clock is not to be relied on.
	Clock func() error
	// Also are further parts that are swept each time.
	Also []func(ctx context.Context)
	Log  *slog.Logger // required
}

// Sweeper sweeps and cleans the storage of the cluster and of this node.
type Sweeper struct{ Config }

// New returns a sweeper.
func New(cfg Config) *Sweeper { return &Sweeper{cfg} }

// Run keeps the cluster's storage clean until ctx is done. One node does that at a time.
func (s *Sweeper) Run(ctx context.Context) {
	seen := make(map[string]sighting)
	ticker := time.NewTicker(Every)
	defer ticker.Stop()
	clean := time.Now().Add(CleanFirst)
	for {
		seen = s.sweep(ctx, seen)
		for _, also := range s.Also {
			also(ctx)
		}
		if !time.Now().Before(clean) {
			s.Clean(ctx, s.Shared, Grace)
			clean = time.Now().Add(CleanEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// RunOwn keeps this node's own storage clean until ctx is done. Every node does that.
func (s *Sweeper) RunOwn(ctx context.Context) {
	for pause := CleanFirst; s.Own != nil; pause = CleanEvery {
		select {
		case <-time.After(pause):
			s.Clean(ctx, s.Own, Grace)
		case <-ctx.Done():
			return
		}
	}
}

// sighting is what is known of a leftover.
type sighting struct {
	sum   [sha256.Size]byte
	since time.Time
}

// sweep looks once, and returns the leftovers that it has seen. Records that cannot be read or
// deleted are left to the next time.
func (s *Sweeper) sweep(ctx context.Context, before map[string]sighting) map[string]sighting {
	now := time.Now()
	seen := make(map[string]sighting)
	for _, key := range s.leftovers(ctx) {
		value, err := s.Shared.Load(ctx, key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			s.complain(ctx, "a leftover of an order cannot be read", key, err)
			if old, ok := before[key]; ok {
				seen[key] = old
			}
			continue
		}
		this := sighting{sha256.Sum256(value), now}
		if old, ok := before[key]; ok && old.sum == this.sum {
			this.since = old.since
		}
		if now.Sub(this.since) < leftoverAge {
			seen[key] = this
			continue
		}
		if err := s.Shared.Delete(ctx, key); err != nil {
			s.complain(ctx, "a leftover of an order cannot be deleted", key, err)
			seen[key] = this
			continue
		}
		s.Log.Info("a leftover of an order was deleted", "key", key)
	}
	return seen
}

// leftovers returns the records that only exist while an order is under way. certmagic does not
// delete those of an order that was interrupted.
func (s *Sweeper) leftovers(ctx context.Context) (out []string) {
	for _, issuer := range s.list(ctx, "acme") {
		out = append(out, s.list(ctx, issuer+"/challenge_tokens")...)
	}
	for _, key := range s.list(ctx, "") {
		if strings.HasPrefix(key, "rw_test_") {
			out = append(out, key)
		}
	}
	return out
}

// list returns what is in a directory, nothing if it does not exist.
func (s *Sweeper) list(ctx context.Context, dir string) []string {
	keys, err := s.Shared.List(ctx, dir, false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.complain(ctx, "the storage cannot be searched for leftovers of orders", dir, err)
	}
	return keys
}

func (s *Sweeper) complain(ctx context.Context, what, key string, err error) {
	if ctx.Err() == nil {
		s.Log.Warn(what+"; will try again", "key", key, "error", err)
	}
}
