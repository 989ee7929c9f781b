package certs

import (
	"bytes"
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
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/mholt/acmez/v3/acme"
)

// What is to be done about a record of certmagic's that cannot be read: a certificate that is garbage,
// or cut short, or for another name, a key that is not the certificate's, an account whose key is
// lost. certmagic fails for ever then, and orders nothing. Here it counts as missing. Its records are
// copied aside, for those who want to know what happened, and the one without which certmagic takes it
// for missing is deleted: for a certificate the metadata. The rest stays until it is overwritten, so
// that it is seen that the name has had a certificate.

const (
	asidePlace  = "flotilla/aside"
	asideSettle = 3 * time.Second // a record that somebody is just writing, part by part, is not damaged
	asideLook   = pushRetry       // between looks whether that is so: no renewal shall wait longer, nor look like damage
	asideMost   = 20              // times are kept
	asideAge    = 30 * 24 * time.Hour
	asideBytes  = 64 << 10    // of each record
	asideLimit  = time.Minute // for all of it
	asideLayout = "20060102T150405.000Z"
)

// noteDamage takes down that what is stored for name cannot be read, until there is a certificate.
func (c *Certs) noteDamage(name string, bad error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.names[name]; m != nil {
		m.damage = fmt.Errorf("the certificate in the storage cannot be read, and is ordered anew (a copy is below %s): %w", asidePlace, bad)
		if m.err != nil {
			m.err = m.damage
		}
	}
}

// damage says what is wrong with the records of name's certificate. Nothing is wrong with what is
// missing. The records are those that were looked at.
func (c *Certs) damage(ctx context.Context, name string) (bad error, records []state.Record, err error) {
	for _, i := range c.config.Issuers {
		stem := strings.TrimSuffix(certmagic.StorageKeys.SiteCert(i.IssuerKey(), c.site(name)), ".crt")
		var parts []state.Record
		for _, ext := range []string{".key", ".crt", ".json"} {
			value, err := c.config.Storage.Load(ctx, stem+ext)
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
		if bad := badCertificate(c.subject(name), parts[0].Value, parts[1].Value, parts[2].Value); bad != nil {
			return bad, parts, nil
		}
	}
	return nil, nil, nil
}

// badCertificate says what is wrong with a certificate as certmagic stores it.
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

// setAside makes room for another certificate for name, which could not be loaded because of cause, if
// that is because its records are damaged; otherwise it returns cause.
func (c *Certs) setAside(ctx context.Context, name string, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, asideLimit)
	defer cancel()
	bad, before, err := c.damage(ctx, name)
	if err != nil || bad == nil {
		return cause
	}
	for end := time.Now().Add(asideSettle); time.Now().Before(end); {
		select {
		case <-time.After(asideLook):
		case <-ctx.Done():
			return cause
		}
		bad, records, err := c.damage(ctx, name)
		switch {
		case err != nil:
			return cause
		case bad == nil:
			return nil // it is whole now
		case !slices.EqualFunc(records, before, sameRecord):
			return cause // it is being written
		}
		c.noteDamage(name, bad)
	}
	lock := keyspace.IssueLock + c.subject(name) // certmagic's own, so that nobody is writing a better one
	if err := c.config.Storage.Lock(ctx, lock); err != nil {
		return errors.Join(cause, err)
	}
	defer c.unlock(ctx, lock)
	bad, records, err := c.damage(ctx, name)
	switch {
	case err != nil:
		return cause
	case bad == nil:
		return nil // another node has done it, or somebody has repaired it
	case !slices.EqualFunc(records, before, sameRecord):
		return cause // it is being written
	}
	c.present(name) // and nobody gets a self-signed one instead
	place, err := c.keepAside(ctx, records)
	if err != nil {
		return errors.Join(cause, err)
	}
	if err := c.config.Storage.Delete(ctx, records[len(records)-1].Key); err != nil {
		return errors.Join(cause, err)
	}
	c.Log.Error("a certificate in the storage cannot be read; it is ordered anew", "domain", name, "error", bad, "aside", place)
	return nil
}

func sameRecord(a, b state.Record) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }

// unlock gives a lock back, whether or not ctx is over. One that cannot be given back ends with this
// node's session.
func (c *Certs) unlock(ctx context.Context, lock string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), slotUnlock)
	defer cancel()
	if err := c.config.Storage.Unlock(ctx, lock); err != nil {
		c.Log.Debug("a lock was not given back", "lock", lock, "error", err)
	}
}

// keepAside copies records aside and returns where they are. A record that is too long is cut.
func (c *Certs) keepAside(ctx context.Context, records []state.Record) (string, error) {
	storage := c.config.Storage
	place := asidePlace + "/" + c.Clocks.Now().UTC().Format(asideLayout)
	for _, r := range records {
		if c.perNode() && path.Ext(r.Key) == ".key" {
			continue // it does not leave this node
		}
		if err := storage.Store(ctx, place+"/"+r.Key, r.Value[:min(len(r.Value), asideBytes)]); err != nil {
			return "", fmt.Errorf("damaged records cannot be set aside: %w", err)
		}
	}
	all, err := storage.List(ctx, asidePlace, false) // the oldest first
	for err == nil && len(all) > asideMost {
		err = storage.Delete(ctx, all[0])
		all = all[1:]
	}
	return place, nil // those that are too many go with the next cleaning
}

// mendAccounts sets accounts aside that certmagic cannot read, so that it opens new ones. It is called
// before an order, and reads memory.
func (c *Certs) mendAccounts(ctx context.Context) error {
	for _, i := range c.config.Issuers {
		if _, acme := i.(*certmagic.ACMEIssuer); !acme {
			continue
		}
		users, err := c.config.Storage.List(ctx, "acme/"+certmagic.StorageKeys.Safe(i.IssuerKey())+"/users", false)
		if err != nil {
			continue // there are none yet, or the order says what is wrong
		}
		for _, user := range users {
			if _, bad := c.badAccount(ctx, user); bad != nil {
				if err := c.mendAccount(ctx, user); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// badAccount returns the records of the account in a directory, and what is wrong with them.
func (c *Certs) badAccount(ctx context.Context, user string) (records []state.Record, bad error) {
	stem := user + "/" + path.Base(user)
	for _, ext := range []string{".json", ".key"} {
		value, err := c.config.Storage.Load(ctx, stem+ext)
		if err != nil {
			return nil, nil // certmagic takes it for missing, or the order says what is wrong
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

// mendAccount sets one account aside.
func (c *Certs) mendAccount(ctx context.Context, user string) error {
	ctx, cancel := context.WithTimeout(ctx, asideLimit)
	defer cancel()
	if err := c.config.Storage.Lock(ctx, keyspace.DamagedLock); err != nil {
		return err
	}
	defer c.unlock(ctx, keyspace.DamagedLock)
	records, bad := c.badAccount(ctx, user)
	if bad == nil {
		return nil // another node has done it
	}
	place, err := c.keepAside(ctx, records)
	if err != nil {
		return err
	}
	for _, r := range records {
		if err := c.config.Storage.Delete(ctx, r.Key); err != nil {
			return err
		}
	}
	c.Log.Error("an ACME account in the storage cannot be read; another is opened", "account", user, "error", bad, "aside", place)
	return nil
}

// sweepAside deletes what was set aside long ago.
func (s *sweeper) sweepAside(ctx context.Context, now time.Time) {
	all := s.list(ctx, asidePlace)
	for i, place := range all {
		at, err := time.Parse(asideLayout, path.Base(place))
		if err == nil && now.Sub(at) < asideAge && len(all)-i <= asideMost {
			continue
		}
		if err := s.storage.Delete(ctx, place); err != nil {
			s.complain(ctx, "damaged records that were set aside cannot be deleted", place, err)
		}
	}
}
