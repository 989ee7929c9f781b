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
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// certmagic stores a certificate as three records, one after another. If one fails, it deletes
// those that it has stored. A crash in between would leave a key that does not belong to its
// certificate, and certmagic cannot recover from that. The deletion would remove the old key. So
// the parts that are stored under an issue lock stay here until the last of the three. They are
// then committed in one entry, on the condition that the lock is still held.

// maxPut is the maximum size of the records of one entry, in bytes: they fit into one call to the
// leader.
const maxPut = 3*MaxValue + MaxValue/2

// issueSite returns the site of certmagic's issue lock with that name, or an empty string if it is
// another lock.
func issueSite(lock string) string {
	name, ok := strings.CutPrefix(lock, keyspace.IssueLock)
	if !ok {
		return ""
	}
	return certmagic.StorageKeys.Safe(name)
}

// bundle is the parts of a certificate that have been stored under its issue lock and are not
// committed.
type bundle struct {
	pending map[string][]byte // by key
	// keys of a failed commit: when certmagic deletes them, nothing else is deleted
	failed map[string]bool
}

// hold keeps a part in the bundle and returns true, unless it is the last part, the metadata.
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

// complete returns the records to commit when meta, the last part, is stored at key. It returns nil
// if meta is not the last part of this bundle: certmagic may write the metadata of an older
// certificate at the same time.
func (b *bundle) complete(key string, meta []byte) []state.Record {
	stem := strings.TrimSuffix(key, ".json")
	private, cert := b.pending[stem+".key"], b.pending[stem+".crt"]
	if private == nil || cert == nil || !isAbout(meta, cert) {
		return nil
	}
	return []state.Record{{Key: stem + ".key", Value: private}, {Key: stem + ".crt", Value: cert}, {Key: key, Value: meta}}
}

// forget drops a part. It reports whether the part was in the bundle or in a commit that failed;
// then there is nothing else to delete. For a failed commit it reports this once.
func (b *bundle) forget(key string) bool {
	_, ok := b.pending[key]
	ok = ok || b.failed[key]
	delete(b.pending, key)
	delete(b.failed, key)
	return ok
}

// commits records how a commit ended. A failed commit may still have taken effect.
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

// rest returns the parts that are still not committed when the lock is given up.
func (b *bundle) rest() []state.Record {
	var records []state.Record
	for _, key := range slices.Sorted(maps.Keys(b.pending)) {
		records = append(records, state.Record{Key: key, Value: b.pending[key]})
	}
	return records
}

// isAbout reports whether metadata of certmagic belongs to the certificate, as far as the metadata
// shows that. Renewal information of the authority names a certificate, and certmagic writes it
// outside of its lock too.
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

// storeAll stores all records in one entry, or none.
func (s *Storage) storeAll(ctx context.Context, records []state.Record) error {
	c, err := s.putCommand(ctx, records)
	if err != nil {
		return err
	}
	a, err := s.at().replica.Writes.Do(ctx, c)
	if err == nil {
		err = a.Code.Err()
	}
	return err
}

// putCommand checks records and returns the command that stores them.
func (s *Storage) putCommand(ctx context.Context, records []state.Record) (state.Command, error) {
	clean := make([]state.Record, len(records))
	var errs []error
	for i, r := range records {
		key, err := keyspace.CleanToStore(r.Key)
		if err == nil {
			err = s.room(ctx, key, r.Value)
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

// storeMeta stores metadata of a certificate, unless they belong to another certificate than the
// one in the state. After a renewal, a node that has not noticed it yet may write the metadata of
// the old certificate. That would cause the new one to be renewed.
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
	s.log.Debug("metadata of a certificate that has been replaced are dropped", "key", key)
	return true, nil
}
