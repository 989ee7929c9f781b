package certs

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/certs/quarantine"
	"github.com/flotilla-ha/flotilla/internal/certs/rekey"
	"github.com/flotilla-ha/flotilla/internal/errs"
)

// errServesNothing means that this node does not know which names are served.
var errServesNothing = errors.New("this node serves no names, so it does not know whether another one serves this one; " +
	"let a node lead that serves them")

// newRekeyer returns what replaces the keys of all certificates. used is closed when this node has
// a name to serve.
func newRekeyer(cfg *Config, o *orderer, d *demands, used <-chan struct{}) *rekey.Rekeyer {
	names := o.loader.names
	return rekey.New(rekey.Config{
		Certmagic: o.loader.config, Shared: cfg.Shared, PerNode: cfg.perNode(), Damaged: quarantine.Place, Clocks: cfg.Clocks,
		Wanted: func(ctx context.Context, site, subject string) (string, error) {
			for _, name := range names.at(site) {
				if names.isDeclared(name) {
					return name, nil
				}
			}
			select {
			case <-used:
			default:
				return "", errServesNothing
			}
			err := d.allowed(ctx, subject)
			switch {
			case err == nil:
				return subject, nil
			case ctx.Err() != nil:
				return "", err
			case errors.Is(err, errUnknownName):
				return "", rekey.ErrUnwanted
			}
			return "", fmt.Errorf("%w: %w", rekey.ErrUnwanted, err)
		},
		Order: func(ctx context.Context, name string) error {
			if err := o.mayOrder(name, false); err != nil {
				return err // without waiting for the lock of the name
			}
			err := o.order(ctx, name, true, attempt{fresh: true, again: true})
			// certmagic does not wrap the error of the storage
			if err != nil && (errors.Is(err, errs.ErrTooLarge) || strings.Contains(err.Error(), "saving assets")) {
				return fmt.Errorf("%w: %w", rekey.ErrUnsaved, err)
			}
			return err
		},
		Held: func(name string) error {
			if p := o.backoff.For(name, o.loader.config.Issuers, false); p != nil {
				return p
			}
			return nil
		},
		RevocationHeld: func(issuer certmagic.Issuer) error {
			if p := o.backoff.Revocation(issuer); p != nil {
				return p
			}
			return nil
		},
		Barrier: cfg.Barrier, Roots: cfg.Policy.TrustedRoots, Network: cfg.Network, Log: cfg.Log,
	})
}

// RekeyProgress is how far Rekey is.
type RekeyProgress = rekey.Progress

// Rekey makes worthless what somebody may know of the certificates: the keys of accounts are
// replaced, every name gets a certificate with another key, and the old ones are revoked. id names
// the replacement, such as the index of the entry that removed a node. The first call with an id
// lists what the storage has then. Later ones, on any node, go on where that was left; one node
// works at a time. Rekey returns nil when all is done, also for earlier ids, or an error when ctx
// ends or c is closed. Call it when those who know the old keys can read the storage no more.
func (c *Certs) Rekey(ctx context.Context, id string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.loader.life, func() { cancel(errs.ErrClosed) })()
	return c.rekeyer.Run(ctx, id)
}

// RekeyProgress returns how far Rekey is with an id, from any node.
func (c *Certs) RekeyProgress(ctx context.Context, id string) (RekeyProgress, error) {
	return c.rekeyer.Progress(ctx, id)
}
