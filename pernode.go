package flotilla

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/secrets"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// This file implements TLS.PerNode: a node keeps its certificates to itself. What certmagic stores
// below certificates/ and ocsp/ does not go into the log but into a state of the node's own. That
// state has the same type as the cluster's, so it behaves the same. It is stored in one file, a
// snapshot. Everything else is the cluster's. Accounts are shared, so that there is only one. The
// tokens of challenges are shared, so that every node can answer. Locks are shared, because two
// orders of one name at a time would put their tokens in the same place.

// ownStorage is the cluster's storage, except for the records that are the node's own. It exposes
// no lock and no key that Storage does not expose.
type ownStorage struct {
	*Storage
	onChange func(site string) // called after a change; must not block

	dir     *durable.Dir // nil: in memory
	current atomic.Pointer[state.State]

	// held while current is changed, across the write to the disk: only other writers wait
	mu      sync.Mutex
	bundle  bundle // uncommitted parts of all names
	unsaved bool   // current is not on disk; flush tries again
}

var (
	_ certmagic.Storage          = (*ownStorage)(nil)
	_ certmagic.TryLocker        = (*ownStorage)(nil)
	_ certmagic.LockLeaseRenewer = (*ownStorage)(nil)
)

func newOwnStorage(s *Storage, onChange func(site string)) *ownStorage {
	o := &ownStorage{Storage: s, onChange: onChange}
	o.current.Store(state.New())
	return o
}

// open reads the node's own records from its directory, before anything else uses o. It writes
// nothing.
func (o *ownStorage) open(dir *durable.Dir, set *secrets.Set) error {
	o.dir = dir
	if dir == nil {
		return nil
	}
	s := state.New()
	s.Keys = seal.NewKeyring()
	b, err := dir.ReadFile(durable.OwnFile)
	if err == nil {
		s, err = state.ReadSnapshot(bytes.NewReader(b), set.All())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		field := "Dir"
		if errors.As(err, new(*seal.WrongSecretError)) {
			field = "Secrets"
		}
		return &ConfigError{Field: field, Reason: fmt.Sprintf("this node's own certificates, in the file %q in %s, cannot be read; "+
			"restore it, or remove it to have new ones ordered", durable.OwnFile, dir.Path()), Err: err}
	}
	if s.Wrapped, err = s.Keys.Wrap(set.Accepted()...); err != nil {
		return fmt.Errorf("sealing the node's own certificates: %w", err)
	}
	o.current.Store(s)
	return nil
}

// reseal writes the node's own records anew, with another data key and for those secrets.
func (o *ownStorage) reseal(secrets []seal.Secret) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := *o.current.Load()
	if o.dir == nil || s.Keys == nil {
		return nil
	}
	s.Keys = seal.NewKeyring()
	var err error
	if s.Wrapped, err = s.Keys.Wrap(secrets...); err == nil {
		err = o.write(&s)
	}
	if err != nil {
		return err
	}
	o.current.Store(&s)
	o.unsaved = false
	return nil
}

// isOwn reports whether a clean key is the node's own.
func isOwn(key string) bool {
	top, _, _ := strings.Cut(key, "/")
	return top == "certificates" || top == "ocsp"
}

// own cleans key, and reports whether it is the node's own, or the root, which is above both kinds.
func (o *ownStorage) own(key string) (clean string, own, root bool) {
	clean, err := keyspace.Clean(key)
	return clean, err == nil && isOwn(clean), err == nil && clean == ""
}

// String names the storage in logs.
func (o *ownStorage) String() string { return o.Storage.String() + "+own" }

// Store is Storage.Store.
func (o *ownStorage) Store(ctx context.Context, key string, value []byte) error {
	clean, own, _ := o.own(key)
	if !own {
		return o.Storage.Store(ctx, key, value)
	}
	o.trace(ctx, "store own", key)
	if err := keyspace.Misplaced(clean); err != nil {
		return pathError("store", key, err)
	}
	if len(value) > MaxValue {
		return pathError("store", key, fmt.Errorf("%w: the value has %d bytes, the limit is %d", ErrTooLarge, len(value), MaxValue))
	}
	fx, err := o.store(clean, value)
	o.tell(fx)
	if err == nil && fx.Tickets { // the keys of tickets are the cluster's
		err = o.at().dropTickets(ctx)
	}
	return pathError("store", key, err)
}

// store does the work of storePart and storeMeta of Storage. It needs no lock of the cluster,
// because no other node uses these records.
func (o *ownStorage) store(key string, value []byte) (fx state.Effects, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	records := []state.Record{{Key: key, Value: value}}
	if _, part := keyspace.BundlePart(key); part != "" {
		if o.bundle.hold(key, value) {
			return fx, nil
		}
		defer func() { o.bundle.commits(records, err) }()
		crt, stored := o.current.Load().Records.Get(keyspace.Tree(strings.TrimSuffix(key, ".json") + ".crt"))
		if all := o.bundle.complete(key, value); all != nil {
			records = all
		} else if stored && !isAbout(value, crt.Value) {
			return fx, nil // metadata of a certificate that has been replaced
		}
	}
	return o.change(state.PutRecords{Records: records, MaxState: o.limit()})
}

// change applies a command as the state machine does, and writes the result to disk. If the disk
// fails, the result stays in memory until it can be written. An error would make certmagic give up
// the certificate and order it again and again. The caller holds o.mu.
func (o *ownStorage) change(c state.Change) (fx state.Effects, err error) {
	old := o.current.Load()
	next, a := old.Apply(old.Index+1, &state.Command{Time: time.Now().UnixNano(), Change: c}, &fx)
	if err := a.Code.Err(); err != nil {
		return state.Effects{}, err
	}
	if err := o.write(next); err != nil {
		if !replica.OfDisk(err) {
			return state.Effects{}, err
		}
		if !o.unsaved {
			o.log.Error("the node's own certificates cannot be written to disk; they stay in memory until they can", "err", o.at().replica.Explain(err))
		}
		o.unsaved = true
	} else {
		o.unsaved = false
	}
	o.current.Store(next)
	return fx, nil
}

// write writes s to disk. The caller holds o.mu.
func (o *ownStorage) write(s *state.State) error {
	if o.dir == nil {
		return nil
	}
	var b bytes.Buffer
	if err := state.WriteSnapshot(&b, s); err != nil {
		return err
	}
	return o.dir.WriteFile(durable.OwnFile, b.Bytes())
}

// flush writes to disk what could not be written before.
func (o *ownStorage) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.unsaved || o.write(o.current.Load()) != nil {
		return
	}
	o.unsaved = false
	o.log.Info("the node's own certificates are on disk again")
}

func (o *ownStorage) tell(fx state.Effects) {
	for _, site := range keyspace.CertificateSites(fx.Keys) {
		o.onChange(site)
	}
}

// Load is Storage.Load.
func (o *ownStorage) Load(ctx context.Context, key string) ([]byte, error) {
	clean, own, _ := o.own(key)
	if !own {
		return o.Storage.Load(ctx, key)
	}
	o.trace(ctx, "load own", key)
	value, err := o.current.Load().Load(clean, fs.ErrNotExist)
	return value, pathError("load", key, err)
}

// Delete is Storage.Delete.
func (o *ownStorage) Delete(ctx context.Context, key string) error {
	clean, own, root := o.own(key)
	if !own {
		if err := o.Storage.Delete(ctx, key); err != nil || !root {
			return err
		}
	}
	o.trace(ctx, "delete own", key)
	o.mu.Lock()
	var fx state.Effects
	var err error
	if !o.bundle.forget(clean) {
		fx, err = o.change(state.DeleteRecords{Key: clean})
	}
	o.mu.Unlock()
	o.tell(fx)
	return pathError("delete", key, err)
}

// Exists is Storage.Exists.
func (o *ownStorage) Exists(ctx context.Context, key string) bool {
	_, err := o.Stat(ctx, key)
	return err == nil
}

// Stat is Storage.Stat.
func (o *ownStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	clean, own, root := o.own(key)
	if !own {
		if info, err := o.Storage.Stat(ctx, key); err == nil || !root {
			return info, err
		}
	}
	o.trace(ctx, "stat own", key)
	info, err := o.current.Load().Stat(clean, fs.ErrNotExist)
	if err != nil {
		return certmagic.KeyInfo{}, pathError("stat", key, err)
	}
	return keyInfo(key, info), nil
}

// List is Storage.List.
func (o *ownStorage) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	clean, own, root := o.own(dir)
	if own {
		o.trace(ctx, "list own", dir)
		keys, err := o.current.Load().ListAll(clean, recursive, fs.ErrNotExist)
		return keys, pathError("list", dir, err)
	}
	keys, err := o.Storage.List(ctx, dir, recursive)
	if !root || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return keys, err
	}
	keys = append(slices.DeleteFunc(keys, isOwn), o.current.Load().List("", recursive)...)
	if len(keys) == 0 {
		return nil, pathError("list", dir, fs.ErrNotExist)
	}
	slices.SortFunc(keys, func(a, b string) int { return bytes.Compare(keyspace.Tree(a), keyspace.Tree(b)) })
	return keys, nil
}
