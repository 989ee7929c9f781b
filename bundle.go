package flotilla

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/mholt/acmez/v3/acme"
)

// certmagic stores a certificate as three records, one after another, and takes back what it has
// stored if one fails. A crash in between would leave a key that does not belong to its
// certificate, which certmagic never gets over, and taking back deletes the old key. So what is
// stored of a certificate under its issue lock is kept here until the last of the three, and
// committed in one entry, on the condition that the lock is still held.

// maxPut is how many bytes records of one entry have at most: they fit into one call to the leader.
const maxPut = 3*MaxValue + MaxValue/2

// issueSite returns the site that certmagic's lock of that name is for, empty if it is another
// lock.
func issueSite(lock string) string {
	name, ok := strings.CutPrefix(lock, keyspace.IssueLock)
	if !ok {
		return ""
	}
	return certmagic.StorageKeys.Safe(name)
}

// bundle is what has been stored of a certificate under its issue lock, and is not committed.
type bundle struct {
	pending map[string][]byte // by key
	// keys of a commit that failed: what certmagic deletes of them is not taken back
	failed map[string]bool
}

// hold keeps a part of a bundle back, and returns true then.
func (b *bundle) hold(key string, value []byte) bool {
	if path.Ext(key) == ".json" {
		return false
	}
	if b.pending == nil {
		b.pending = make(map[string][]byte)
	}
	b.pending[key] = slices.Clone(value)
	delete(b.failed, key)
	return true
}

// complete returns the records to commit when meta, the last part, is stored at key; nil if this is
// not the last part of the bundle but what certmagic writes about an older certificate at the same
// time.
func (b *bundle) complete(key string, meta []byte) []state.Record {
	stem := strings.TrimSuffix(key, ".json")
	private, cert := b.pending[stem+".key"], b.pending[stem+".crt"]
	if private == nil || cert == nil || !isAbout(meta, cert) {
		return nil
	}
	return []state.Record{{Key: stem + ".key", Value: private}, {Key: stem + ".crt", Value: cert}, {Key: key, Value: meta}}
}

// forget drops a part, and reports whether there was one, or would have been one: then there is
// nothing else to delete, once.
func (b *bundle) forget(key string) bool {
	_, ok := b.pending[key]
	ok = ok || b.failed[key]
	delete(b.pending, key)
	delete(b.failed, key)
	return ok
}

// commits notes how a commit ended. One that failed may still have taken effect.
func (b *bundle) commits(records []state.Record, err error) {
	for _, r := range records {
		delete(b.pending, r.Key)
		if err != nil {
			if b.failed == nil {
				b.failed = make(map[string]bool)
			}
			b.failed[r.Key] = true
		}
	}
}

// rest returns what is left to commit when the lock is given up.
func (b *bundle) rest() []state.Record {
	var records []state.Record
	for _, key := range slices.Sorted(maps.Keys(b.pending)) {
		records = append(records, state.Record{Key: key, Value: b.pending[key]})
	}
	return records
}

// isAbout reports whether the metadata that certmagic stores belongs to the certificate, as far as
// it says: the authority's renewal information, which certmagic also writes outside of its lock,
// names one.
func isAbout(meta, cert []byte) bool {
	var m struct {
		Issuer struct {
			Renewal struct {
				ID string `json:"_uniqueIdentifier"`
			} `json:"renewal_info"`
		} `json:"issuer_data"`
	}
	if err := json.Unmarshal(meta, &m); err != nil || m.Issuer.Renewal.ID == "" {
		return true
	}
	block, _ := pem.Decode(cert)
	if block == nil {
		return true
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return true
	}
	id, err := acme.ARIUniqueIdentifier(leaf)
	return err != nil || id == m.Issuer.Renewal.ID
}

// storeAll stores all of the records in one entry, or none.
func (s *Storage) storeAll(ctx context.Context, records []state.Record) error {
	c, err := s.putCommand(records)
	if err != nil {
		return err
	}
	a, err := s.at().replica.Writes.Do(ctx, c)
	if err == nil {
		err = a.Code.Err()
	}
	return err
}

// putCommand checks records and makes the command of them.
func (s *Storage) putCommand(records []state.Record) (state.Command, error) {
	clean := make([]state.Record, len(records))
	var errs []error
	for i, r := range records {
		key, err := keyspace.CleanToStore(r.Key)
		if err == nil {
			err = s.room(key, r.Value)
		}
		clean[i] = state.Record{Key: key, Value: r.Value}
		errs = append(errs, err)
	}
	c := state.PutRecords{Records: clean, MaxState: s.limit()}
	if c.Size() > maxPut {
		errs = append(errs, fmt.Errorf("%w: the records have %d bytes together, the limit is %d", ErrTooLarge, c.Size(), maxPut))
	}
	return state.Command{Change: c}, errors.Join(errs...)
}

// storeMeta stores metadata of a certificate, unless they are about another one than that in the
// state: after a renewal a node that has not noticed it yet writes what it knows of the old one,
// and would have the new one renewed.
func (s *Storage) storeMeta(ctx context.Context, key string, meta []byte) (done bool, err error) {
	crt := strings.TrimSuffix(key, ".json") + ".crt"
	r, ok := s.at().store.State().Records.Get(keyspace.Tree(crt))
	if !ok {
		return false, nil
	}
	if isAbout(meta, r.Value) {
		a, err := s.at().replica.Writes.Do(ctx, state.Command{Change: state.StoreRecord{Key: key, Value: meta, MaxState: s.limit(), If: &state.Condition{Key: crt, Index: r.Index}}})
		if err != nil || a.Code != state.CodeChanged {
			if err == nil {
				err = a.Code.Err()
			}
			return true, err
		}
	}
	s.at().log.Debug("metadata of a certificate that has been replaced are dropped", "key", key)
	return true, nil
}
