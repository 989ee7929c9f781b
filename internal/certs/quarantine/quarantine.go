package quarantine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Place is the directory in the storage that copies of damaged records are in.
const Place = "flotilla/quarantine"

// Settle is how long records must be damaged, and the same. Until then somebody may be writing
// them.
const Settle = 3 * time.Second

const (
	// between looks meanwhile: short, because renewals wait for it
	interval      = 250 * time.Millisecond
	maxCopies     = 20                  // times for which copies are kept
	maxAge        = 30 * 24 * time.Hour // of copies
	maxBytes      = 64 << 10            // of each record
	timeout       = time.Minute         // for all of it
	unlockTimeout = 5 * time.Second
	layout        = "20060102T150405.000Z"
)

// Config is what a quarantine needs. All fields but Keyless are required.
type Config struct {
	Certmagic *certmagic.Config        // its storage and issuers
	Subject   func(name string) string // returns the name that is ordered for name
	Clocks    *clocks.Clocks           // for the names of copies, and their age
	Keyless   bool                     // private keys are not copied: they must not leave this node

	// Damaged is called when the records of name turn out to be damaged, and Found when the
	// cluster is known to have had a certificate for it.
	Damaged func(name string, bad error)
	Found   func(name string)
	Log     *slog.Logger // receives what was quarantined
}

// Quarantine quarantines damaged records. Its methods are safe for concurrent use.
type Quarantine struct{ Config }

// New returns a quarantine.
func New(cfg Config) *Quarantine { return &Quarantine{cfg} }

// Certificate makes room for another certificate for name, which could not be loaded because of
// cause, if its records are damaged. Otherwise it returns cause.
func (q *Quarantine) Certificate(ctx context.Context, name string, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	bad, before, err := q.damage(ctx, name)
	if err != nil || bad == nil {
		return cause
	}
	for end := time.Now().Add(Settle); time.Now().Before(end); {
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return cause
		}
		bad, records, err := q.damage(ctx, name)
		switch {
		case err != nil:
			return cause
		case bad == nil:
			return nil // it is complete now
		case !slices.EqualFunc(records, before, equal):
			return cause // it is being written
		}
		q.Damaged(name, bad)
	}
	// certmagic's own: nobody else is writing a better one
	lock := keyspace.IssueLock + q.Subject(name)
	if err := q.Certmagic.Storage.Lock(ctx, lock); err != nil {
		return errors.Join(cause, err)
	}
	defer q.unlock(ctx, lock)
	bad, records, err := q.damage(ctx, name)
	switch {
	case err != nil:
		return cause
	case bad == nil:
		return nil // another node was faster, or somebody has repaired it
	case !slices.EqualFunc(records, before, equal):
		return cause // it is being written
	}
	q.Found(name) // or clients would get a self-signed one instead
	place, err := q.keep(ctx, records)
	if err != nil {
		return errors.Join(cause, err)
	}
	if err := q.Certmagic.Storage.Delete(ctx, records[len(records)-1].Key); err != nil {
		return errors.Join(cause, err)
	}
	q.Log.Error("a certificate in the storage cannot be read; it is ordered anew",
		"domain", name, "error", bad, "quarantined", place)
	return nil
}

func equal(a, b state.Record) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }

// unlock gives a lock back, whether or not ctx is over. A lock that cannot be given back ends with
// this node's session.
func (q *Quarantine) unlock(ctx context.Context, lock string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
	defer cancel()
	if err := q.Certmagic.Storage.Unlock(ctx, lock); err != nil {
		q.Log.Debug("a lock was not given back", "lock", lock, "error", err)
	}
}

// keep copies records and returns where the copies are. A record that is too long is cut.
func (q *Quarantine) keep(ctx context.Context, records []state.Record) (string, error) {
	storage := q.Certmagic.Storage
	place := Place + "/" + q.Clocks.Now().UTC().Format(layout)
	for _, r := range records {
		if q.Keyless && path.Ext(r.Key) == ".key" {
			continue
		}
		if err := storage.Store(ctx, place+"/"+r.Key, r.Value[:min(len(r.Value), maxBytes)]); err != nil {
			return "", fmt.Errorf("damaged records cannot be quarantined: %w", err)
		}
	}
	all, err := storage.List(ctx, Place, false) // the oldest first
	for err == nil && len(all) > maxCopies {
		err = storage.Delete(ctx, all[0])
		all = all[1:]
	}
	return place, nil // those in excess are deleted by the next sweep
}

// account quarantines one account.
func (q *Quarantine) account(ctx context.Context, user string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	storage := q.Certmagic.Storage
	if err := storage.Lock(ctx, keyspace.DamagedLock); err != nil {
		return err
	}
	defer q.unlock(ctx, keyspace.DamagedLock)
	records, bad := q.badAccount(ctx, user)
	if bad == nil {
		return nil // another node was faster
	}
	place, err := q.keep(ctx, records)
	if err != nil {
		return err
	}
	for _, r := range records {
		if err := storage.Delete(ctx, r.Key); err != nil {
			return err
		}
	}
	q.Log.Error("an ACME account in the storage cannot be read; another is opened",
		"account", user, "error", bad, "quarantined", place)
	return nil
}

// Accounts quarantines accounts that certmagic cannot read, so that it opens new ones. It is called
// before an order, and reads memory unless an account is damaged.
func (q *Quarantine) Accounts(ctx context.Context) error {
	for _, i := range q.Certmagic.Issuers {
		if _, acme := i.(*certmagic.ACMEIssuer); !acme {
			continue
		}
		dir := "acme/" + certmagic.StorageKeys.Safe(i.IssuerKey()) + "/users"
		users, err := q.Certmagic.Storage.List(ctx, dir, false)
		if err != nil {
			continue // there are none yet, or the order reports the error
		}
		for _, user := range users {
			if _, bad := q.badAccount(ctx, user); bad != nil {
				if err := q.account(ctx, user); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Sweep deletes old copies, unless this node's clock is not to be relied on.
func (q *Quarantine) Sweep(ctx context.Context) {
	if q.Clocks.Check(clocks.MaxOffset) != nil {
		return
	}
	all, err := q.Certmagic.Storage.List(ctx, Place, false)
	if err != nil {
		return // there are none, or the sweeper of the storage reports the error
	}
	for i, place := range all {
		at, err := time.Parse(layout, path.Base(place))
		if err == nil && q.Clocks.Now().Sub(at) < maxAge && len(all)-i <= maxCopies {
			continue
		}
		if err := q.Certmagic.Storage.Delete(ctx, place); err != nil && ctx.Err() == nil {
			q.Log.Warn("quarantined records cannot be deleted; will try again", "key", place, "error", err)
		}
	}
}
