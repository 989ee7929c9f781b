package rekey

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

const lostPause = time.Minute // before an account counts as lost

// account gives an account another key, or closes it if certmagic has opened another one meanwhile.
// It is nil when nobody can use the old key.
func (w *work) account(ctx context.Context, a *account) error {
	if a.Done {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	client := w.client(a.authority(), w.urls[a.authority()])
	if _, configured := w.issuer(a.authority()).(*certmagic.ACMEIssuer); !configured {
		if _, err := w.Shared.Stat(ctx, a.Stem+".key"); errors.Is(err, fs.ErrNotExist) {
			return w.done(ctx, a) // a person has closed it, or the authority is gone
		}
	}
	if client == nil {
		return &waiting{"no issuer is configured for this authority, and its address is not known: close the account there " +
			"with the key in " + a.Stem + ".key, or have TLS.CA name the authority; then delete " + a.Dir + " from the storage", retryLast}
	}
	var at acme.Account
	if err := json.Unmarshal(a.Account, &at); err != nil {
		return err
	}
	if strings.HasPrefix(a.Dir, w.Damaged+"/") { // another one was opened in its place
		return w.closeCopy(ctx, client, a)
	}
	fresh, err := w.freshKey(ctx, a)
	if err != nil {
		return err
	}
	old, err := decodeKey([]byte(a.Old))
	if err != nil {
		return err
	}
	at.PrivateKey = old
	lost := false
	if err := rollOver(ctx, client, at, fresh); err != nil {
		if errors.Is(err, errNoKeyChange) {
			return w.abandon(ctx, client, a, at)
		}
		if _, ok := problem(err); !ok {
			if w.issuer(a.authority()) == nil {
				err = fmt.Errorf("%w; if this authority has gone for good, delete %s from the storage", err, a.Dir)
			}
			return err
		}
		// It may have happened before an interruption: which key does the authority know?
		known, bad := knows(ctx, client, fresh)
		if bad != nil {
			return errors.Join(err, bad)
		}
		if !known {
			if known, bad = knows(ctx, client, old); bad != nil {
				return errors.Join(err, bad)
			}
			if known {
				return err
			}
			lost = true
		}
	}
	at.PrivateKey = fresh
	return w.keep(ctx, client, a, at, lost)
}

// errNoKeyChange means that an authority does not let an account have another key.
var errNoKeyChange = errors.New("the authority does not change keys of accounts")

// rollOver has the authority give an account another key.
func rollOver(ctx context.Context, client *acme.Client, at acme.Account, fresh crypto.Signer) error {
	dir, err := client.GetDirectory(ctx)
	if err != nil {
		return err
	}
	if dir.KeyChange == "" {
		return errNoKeyChange
	}
	_, err = client.AccountKeyRollover(ctx, at, fresh)
	if p := (acme.Problem{}); errors.As(err, &p) && p.Status == http.StatusNotImplemented {
		return fmt.Errorf("%w: %w", errNoKeyChange, err)
	}
	return err
}

// abandon closes an account whose key cannot be replaced. certmagic opens another one.
func (w *work) abandon(ctx context.Context, client *acme.Client, a *account, at acme.Account) error {
	if known, err := knows(ctx, client, at.PrivateKey); err != nil {
		return err
	} else if known {
		at.Status = "deactivated"
		if _, err := client.UpdateAccount(ctx, at); err != nil {
			return fmt.Errorf("closing an account whose key cannot be replaced: %w", err)
		}
	}
	unlock, err := w.lockRegistrations(ctx, at)
	if err != nil {
		return err
	}
	defer unlock()
	stored, err := w.Shared.Load(ctx, a.Stem+".key")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(stored) == a.Old {
		if err := w.forget(ctx, a); err != nil {
			return err
		}
	}
	w.Log.Info("the authority does not change keys of accounts; the account is closed, and another one opened", "account", at.Location)
	return w.done(ctx, a)
}

// closeCopy closes an account whose records were damaged.
func (w *work) closeCopy(ctx context.Context, client *acme.Client, a *account) error {
	old, err := decodeKey([]byte(a.Old))
	if err != nil {
		return err
	}
	at, err := client.GetAccount(ctx, acme.Account{PrivateKey: old})
	if err != nil {
		if known, bad := knows(ctx, client, old); bad != nil || known {
			return errors.Join(err, bad)
		}
		return w.done(ctx, a)
	}
	at.Status = "deactivated"
	if _, err := client.UpdateAccount(ctx, at); err != nil {
		return fmt.Errorf("closing an account whose records were damaged: %w", err)
	}
	return w.done(ctx, a)
}

// freshKey returns the new key of an account. It is stored before anybody uses it.
func (w *work) freshKey(ctx context.Context, a *account) (crypto.Signer, error) {
	if a.New == "" {
		stored, err := w.Shared.Load(ctx, a.Stem+".key")
		if err == nil && slices.Contains(a.Given, string(stored)) {
			a.Old = string(stored) // an earlier re-keying has ended meanwhile
		}
		key, err := certmagic.StandardKeyGenerator{KeyType: certmagic.P256}.GenerateKey()
		if err != nil {
			return nil, err
		}
		text, err := certmagic.PEMEncodePrivateKey(key)
		if err != nil {
			return nil, err
		}
		with := *a
		with.New = string(text)
		if err := w.save(ctx, a.place, &with); err != nil {
			return nil, err
		}
		a.New = with.New
	}
	return decodeKey([]byte(a.New))
}

// knows reports whether the authority has an account of that key that is in use.
func knows(ctx context.Context, client *acme.Client, key crypto.Signer) (bool, error) {
	found, err := client.GetAccount(ctx, acme.Account{PrivateKey: key})
	if err == nil {
		return found.Status == "" || found.Status == acme.StatusValid, nil
	}
	// an account that was closed is "unauthorized"
	p, ok := problem(err)
	if ok && (p.Type == acme.ProblemTypeAccountDoesNotExist || p.Type == acme.ProblemTypeUnauthorized) {
		return false, nil
	}
	return false, err
}

// keep stores the new key, unless certmagic has opened another account meanwhile. An account that
// the authority knows by neither key is lost.
func (w *work) keep(ctx context.Context, client *acme.Client, a *account, at acme.Account, lost bool) error {
	unlock, err := w.lockRegistrations(ctx, at)
	if err != nil {
		return err
	}
	defer unlock()
	stored, err := w.Shared.Load(ctx, a.Stem+".key")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	same, err := w.isStored(ctx, a, at)
	if err != nil {
		return err
	}
	switch text := string(stored); {
	case !same && (text == a.Old || text == a.New):
		// certmagic has deleted half of it, or stored half of another one
		if !lost {
			if err := closeReplaced(ctx, client, at); err != nil {
				return err
			}
		}
		if err := w.forget(ctx, a); err != nil {
			return err
		}
		w.Log.Warn("the stored parts of an ACME account do not belong together; another account is opened", "account", at.Location)
	case text == a.New:
	case text != a.Old && !lost:
		if err := closeReplaced(ctx, client, at); err != nil {
			return err
		}
	case text != a.Old:
	case !lost:
		if err := w.Shared.Store(ctx, a.Stem+".key", []byte(a.New)); err != nil {
			return err
		}
		w.Log.Info("an ACME account has a new key", "account", at.Location)
	case a.missed:
		if err := w.forget(ctx, a); err != nil {
			return err
		}
		w.Log.Error("the authority knows an ACME account no more by its key: somebody else may have changed that; "+
			"another account is opened", "account", at.Location)
	default:
		a.missed = true
		return &waiting{"the authority does not know the account; if it says so again, another account is opened", lostPause}
	}
	return w.done(ctx, a)
}

// lockRegistrations keeps certmagic from opening an account with the address of this one. Its lock
// does not keep it from deleting one.
func (w *work) lockRegistrations(ctx context.Context, at acme.Account) (unlock func(), err error) {
	lock := keyspace.AccountLock
	if len(at.Contact) > 0 {
		_, address, ok := strings.Cut(at.Contact[0], ":")
		if !ok {
			address = at.Contact[0]
		}
		lock += "_" + address
	}
	if unlock, err = w.lock(ctx, lock); err != nil {
		return nil, fmt.Errorf("the lock of registrations, which an order may hold: %w", err)
	}
	return unlock, nil
}

// isStored reports whether the storage describes this account, and no other one.
func (w *work) isStored(ctx context.Context, a *account, at acme.Account) (bool, error) {
	raw, err := w.Shared.Load(ctx, a.Stem+".json")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	var stored acme.Account
	return err == nil && json.Unmarshal(raw, &stored) == nil && stored.Location == at.Location, nil
}

// closeReplaced closes an account beside which certmagic has opened another one: nobody uses it.
func closeReplaced(ctx context.Context, client *acme.Client, at acme.Account) error {
	at.Status = "deactivated"
	if _, err := client.UpdateAccount(ctx, at); err != nil {
		return fmt.Errorf("closing an account that was replaced: %w", err)
	}
	return nil
}

// forget deletes an account from the storage, in certmagic's order.
func (w *work) forget(ctx context.Context, a *account) error {
	for _, ext := range []string{".json", ".key"} {
		if err := w.Shared.Delete(ctx, a.Stem+ext); err != nil {
			return err
		}
	}
	return nil
}

// done records that nobody can use the old key of an account.
func (w *work) done(ctx context.Context, a *account) error {
	done := &account{Dir: a.Dir, Stem: a.Stem, Done: true, place: a.place}
	if err := w.save(ctx, a.place, done); err != nil {
		return err
	}
	*a = *done
	return nil
}
