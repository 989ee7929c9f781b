package flotilla

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/lease"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/roles"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// readTimeout is how long reads on a node without a lease wait for one, counted from the loss of
// the lease or the start of the node. After that they are answered from what the node has.
const readTimeout = 2 * time.Second

// Storage is the cluster's storage, the same on every node. It implements certmagic.Storage,
// certmagic.TryLocker and certmagic.LockLeaseRenewer with the semantics of certmagic's FileStorage.
// Keys are paths. The parents of a key are directories, and a directory exists as long as there is
// something in it.
//
// Writes, locks and roles are linearizable. Reads are regular: a read is never older than the last
// completed write. A write returns when it is committed and every session in the state has applied
// it or has expired. So every node that has a lease then returns it. A write waits for a leader for
// at most 30 seconds, and two seconds longer if this node has no lease and knows of no room for it.
// If its error wraps ErrNoLeader, it may still take effect. A read is answered from this node's
// memory, without the network. A node without a lease tries to get one for two seconds, once. After
// that it answers with what it has, and returns ErrNotReady instead of fs.ErrNotExist for a key
// that it does not have.
//
// Locks exclude each other across the cluster. They are lost with the node's lease. The parts of a
// certificate that certmagic stores under its lock are committed in one step, when they are
// complete, and only if the lock is still held then. Other writes are not tied to locks; see
// Node.Hold for writes that should be.
type Storage struct {
	at  func() *storageNode // the parts of the node
	log *slog.Logger

	freed notify.Signal // a lock was removed from held

	mu   sync.Mutex
	held map[string]*heldLock
}

// storageNode is what a Storage needs of the node around it.
type storageNode struct {
	cfg     Config
	life    *lifecycle.Life
	self    *self.Self
	store   *applied.Store
	replica *replica.Replica
	leases  *lease.Manager
	roles   *roles.Holder

	dropTickets func(ctx context.Context) error
}

// heldLock is a lock that a caller on this node holds, or has lost and not unlocked yet.
type heldLock struct {
	ref    state.Ref
	site   string // the site whose certificate it protects; empty: none
	bundle bundle // guarded by Storage.mu
}

var (
	_ certmagic.Storage          = (*Storage)(nil)
	_ certmagic.TryLocker        = (*Storage)(nil)
	_ certmagic.LockLeaseRenewer = (*Storage)(nil)
)

func newStorage(at func() *storageNode, log *slog.Logger) *Storage {
	return &Storage{at: at, log: log, held: make(map[string]*heldLock)}
}

// trace logs a call. It is called before the call does anything.
func (s *Storage) trace(ctx context.Context, op, key string) {
	if s.log.Enabled(ctx, slog.LevelDebug) {
		s.log.DebugContext(ctx, "storage", "op", op, "key", key)
	}
}

// String names the storage in logs.
func (s *Storage) String() string { return "flotilla(" + s.at().self.Name + ")" }

// Store stores value at key and replaces an earlier value. It fails if there are keys below key, or
// a value at a parent of key. It fails with ErrTooLarge if key is longer than MaxName, value is
// longer than MaxValue, or there is no room (see Config.MaxState). It fails with fs.ErrInvalid if
// key leads out of the storage, or would conflict with what certmagic keeps in its directories.
func (s *Storage) Store(ctx context.Context, key string, value []byte) error {
	s.trace(ctx, "store", key)
	clean, err := keyspace.CleanToStore(key)
	if err == nil {
		err = s.room(ctx, clean, value)
	}
	if err == nil {
		err = s.store(ctx, clean, value)
	}
	return pathError("store", key, err)
}

func (s *Storage) store(ctx context.Context, key string, value []byte) error {
	if site, part := keyspace.BundlePart(key); part != "" {
		if done, err := s.storePart(ctx, site, key, value); done {
			return err
		}
		if part == ".json" {
			if done, err := s.storeMeta(ctx, key, value); done {
				return err
			}
		}
	}
	a, err := s.at().replica.Writes.Do(ctx, state.Command{Change: state.StoreRecord{Key: key, Value: value, MaxState: s.limit()}})
	if err == nil {
		err = a.Code.Err()
	}
	return err
}

// storePart stores a part of a certificate if this node holds the issue lock of its site. The parts
// stay in memory until they are complete.
func (s *Storage) storePart(ctx context.Context, site, key string, value []byte) (done bool, err error) {
	s.mu.Lock()
	var name string
	var lock *heldLock
	for n, l := range s.held {
		if l.site == site {
			name, lock = n, l
		}
	}
	if lock == nil {
		s.mu.Unlock()
		return false, nil
	}
	if lock.bundle.hold(key, value) {
		s.mu.Unlock()
		return true, nil
	}
	records := lock.bundle.complete(key, value)
	ref := lock.ref
	s.mu.Unlock()
	if records == nil {
		return false, nil
	}
	err = s.storeFenced(ctx, name, ref, records)
	s.mu.Lock()
	lock.bundle.commits(records, err)
	s.mu.Unlock()
	return true, err
}

// storeFenced stores records in one entry if the lock is still held when they are committed.
func (s *Storage) storeFenced(ctx context.Context, lock string, ref state.Ref, records []state.Record) error {
	c, err := s.putCommand(ctx, records)
	if err != nil {
		return err
	}
	c.Session, c.Fences = ref.Session, []state.Fence{{Role: keyspace.LockPrefix + lock, Seq: ref.Seq}}
	a, err := s.at().replica.Writes.Do(ctx, c)
	if err == nil {
		err = a.Code.Err()
	}
	return err
}

// room checks a write against the limits.
func (s *Storage) room(ctx context.Context, key string, value []byte) error {
	if len(value) > MaxValue {
		return fmt.Errorf("%w: the value has %d bytes, the limit is %d", ErrTooLarge, len(value), MaxValue)
	}
	b, n := keyspace.OfRecord(key), s.at()
	fits := func(st *state.State) bool { return st.HasRoom(b, st.RecordGrows(key, value), n.cfg.MaxState) }
	if fits(n.store.State()) {
		return nil
	}
	// A node without a lease may not know yet of what has made room.
	st, current := s.read(ctx)
	if !current || fits(st) {
		return nil
	}
	return b.Refuse(st.Used[b], n.cfg.MaxState)
}

// limit is the limit of the state's size, for a command.
func (s *Storage) limit() int64 { return s.at().cfg.MaxState }

// Load returns a copy of the value at key. The error wraps fs.ErrNotExist if the key does not
// exist, and is another one if key is a directory.
func (s *Storage) Load(ctx context.Context, key string) ([]byte, error) {
	s.trace(ctx, "load", key)
	clean, err := keyspace.Clean(key)
	if err != nil {
		return nil, pathError("load", key, err)
	}
	st, current := s.read(ctx)
	value, err := st.Load(clean, s.absent(current))
	return value, pathError("load", key, err)
}

// Delete removes key and everything below it. It returns nil if there is nothing to delete.
func (s *Storage) Delete(ctx context.Context, key string) error {
	s.trace(ctx, "delete", key)
	clean, err := keyspace.Clean(key)
	if err == nil && !s.forget(clean) {
		var a state.Answer
		a, err = s.at().replica.Writes.Do(ctx, state.Command{Change: state.DeleteRecords{Key: clean}})
		if err == nil {
			err = a.Code.Err()
		}
	}
	return pathError("delete", key, err)
}

// forget drops a part of a certificate that is not committed, and reports whether key is such a
// part. certmagic deletes the parts that it has stored when it cannot store the rest. The earlier
// certificate must survive that.
func (s *Storage) forget(key string) bool {
	site, part := keyspace.BundlePart(key)
	if part == "" {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, lock := range s.held {
		if lock.site == site && lock.bundle.forget(key) {
			return true
		}
	}
	return false
}

// Exists reports whether there is a value at key or below it. It cannot return an error: on a node
// that has not caught up, false may mean that the node does not know.
func (s *Storage) Exists(ctx context.Context, key string) bool {
	s.trace(ctx, "exists", key)
	_, err := s.stat(ctx, key)
	return err == nil
}

// List returns the values and directories in the directory dir, in the order of a walk. If
// recursive is set, it includes everything below them. The error wraps fs.ErrNotExist if the
// directory does not exist. If dir is a value, the list is empty.
func (s *Storage) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	s.trace(ctx, "list", dir)
	clean, err := keyspace.Clean(dir)
	if err != nil {
		return nil, pathError("list", dir, err)
	}
	st, current := s.read(ctx)
	keys, err := st.ListAll(clean, recursive, s.absent(current))
	return keys, pathError("list", dir, err)
}

// Stat describes the value or the directory at key. The modification time is by the clock of the
// node that wrote the value. A directory has none.
func (s *Storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	s.trace(ctx, "stat", key)
	return s.stat(ctx, key)
}

func (s *Storage) stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	clean, err := keyspace.Clean(key)
	if err != nil {
		return certmagic.KeyInfo{}, pathError("stat", key, err)
	}
	st, current := s.read(ctx)
	info, err := st.Stat(clean, s.absent(current))
	if err != nil {
		return certmagic.KeyInfo{}, pathError("stat", key, err)
	}
	return keyInfo(key, info), nil
}

// keyInfo describes a key for certmagic, in the form in which the caller wrote it.
func keyInfo(key string, i state.Info) certmagic.KeyInfo {
	out := certmagic.KeyInfo{Key: key, Size: i.Size, IsTerminal: i.Terminal}
	if i.Terminal {
		out.Modified = time.Unix(0, i.Modified)
	}
	return out
}

// read returns the state to answer from, and whether it is current.
func (s *Storage) read(ctx context.Context) (*state.State, bool) {
	n := s.at()
	// The lease is checked first, and the state is taken afterwards. The lease is valid at a moment
	// after the call began. At that moment this node has applied everything that was acknowledged by
	// then. The process may pause for any time after that: the state that it takes is that one or a
	// newer one. So the answer is no older than what was acknowledged when the call began. In the
	// other order, the state would be of a moment for which nothing is known about the lease.
	if n.leases.Valid() {
		return n.store.State(), true
	}
	ctx, cancel := context.WithDeadline(ctx, n.leases.Without().Add(readTimeout))
	defer cancel()
	// the same order again: AwaitReady checks the lease before the state is taken
	current := n.life.Works.Err() == nil && n.leases.AwaitReady(ctx) == nil
	return n.store.State(), current
}

// absent is the error for a key that is not in the state.
func (s *Storage) absent(current bool) error {
	if current {
		return fs.ErrNotExist
	}
	return ErrNotReady
}

// Lock waits until this caller holds the lock of that name, alone in the cluster. Waiting callers
// get it in the order in which they came. When Lock returns, this node's state contains everything
// that was written before the lock was granted.
func (s *Storage) Lock(ctx context.Context, name string) error {
	s.trace(ctx, "lock", name)
	_, err := s.lock(ctx, name, true)
	return pathError("lock", name, err)
}

// TryLock is Lock without waiting: it reports whether the lock was free. If a lock was granted to a
// caller that has given up, or whose node was cut off before it learned of the grant, it is free
// when the grant is withdrawn or the session has ended.
func (s *Storage) TryLock(ctx context.Context, name string) (bool, error) {
	s.trace(ctx, "trylock", name)
	// This node knows everything that was completed before this call. If somebody holds the lock
	// according to that, no write is needed.
	if ctx.Err() == nil && s.at().leases.Valid() && len(s.at().store.State().Claims(keyspace.LockPrefix+name)) > 0 {
		return false, nil
	}
	held, err := s.lock(ctx, name, false)
	return held, pathError("lock", name, err)
}

// RenewLockLease makes sure that this node still holds a lock. It takes the lock again if it was
// lost and is free. A lock needs no renewal while its node has its lease, so the duration is
// ignored. The error wraps ErrLost if another node holds the lock by now.
func (s *Storage) RenewLockLease(ctx context.Context, name string, _ time.Duration) error {
	s.trace(ctx, "renew", name)
	s.mu.Lock()
	lock := s.held[name]
	var ref state.Ref
	if lock != nil {
		ref = lock.ref
	}
	s.mu.Unlock()
	if lock != nil && s.at().leases.Usable(ref.Session) {
		return nil
	}
	ref, err := s.claim(ctx, name, false)
	if err == nil && ref.Seq == 0 {
		err = fmt.Errorf("%w: another node has it", ErrLost)
	}
	if err == nil && !s.keep(name, lock, ref) {
		s.at().roles.Withdraw(keyspace.LockPrefix+name, ref)
		err = fmt.Errorf("%w: it was unlocked meanwhile", ErrLost)
	}
	return pathError("renew lock", name, err)
}

// keep records the claim as held if before is still what is recorded for the lock. It reports
// whether it was.
func (s *Storage) keep(name string, before *heldLock, ref state.Ref) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[name] != before {
		return false
	}
	if before != nil {
		before.ref = ref
		return true
	}
	s.held[name] = &heldLock{ref: ref, site: issueSite(name)}
	return true
}

// drop undoes keep.
func (s *Storage) drop(name string, ref state.Ref) {
	s.mu.Lock()
	if lock := s.held[name]; lock != nil && lock.ref == ref {
		delete(s.held, name)
	}
	s.mu.Unlock()
	s.freed.Notify()
}

func (s *Storage) lock(ctx context.Context, name string, wait bool) (bool, error) {
	for {
		ref, err := s.claim(ctx, name, wait)
		if err != nil || ref.Seq == 0 {
			return false, err
		}
		// A caller on this node may have lost the lock and not know it yet. This call waits for it:
		// otherwise certmagic would store both certificates.
		for {
			freed := s.freed.Wait()
			kept := s.keep(name, nil, ref)
			if !s.at().leases.Usable(ref.Session) { // checked after keep
				if kept {
					s.drop(name, ref)
				}
				s.at().roles.Withdraw(keyspace.LockPrefix+name, ref)
				break
			}
			if kept {
				return true, nil
			}
			if !wait {
				s.at().roles.Withdraw(keyspace.LockPrefix+name, ref)
				return false, nil
			}
			renewed := s.at().leases.Renewed.Wait()
			select {
			case <-freed:
			case <-renewed:
			case <-ctx.Done():
				s.at().roles.Withdraw(keyspace.LockPrefix+name, ref)
				return false, context.Cause(ctx)
			}
		}
	}
}

// claim claims a lock. It returns the zero Ref if the lock is held and wait is false.
func (s *Storage) claim(ctx context.Context, name string, wait bool) (state.Ref, error) {
	if len(name) > MaxName {
		return state.Ref{}, fmt.Errorf("%w: the name has %d bytes, the limit is %d", ErrTooLarge, len(name), MaxName)
	}
	ready, cancel := context.WithTimeoutCause(ctx, replica.WriteTimeout, ErrNoLeader)
	err := s.at().leases.AwaitReady(ready)
	cancel()
	if err != nil {
		return state.Ref{}, err
	}
	ref, _, err := s.at().roles.Await(ctx, state.ClaimRole{Role: keyspace.LockPrefix + name, Wait: wait, MaxState: s.limit()}, nil)
	return ref, err
}

// Unlock gives up a lock that a caller on this node holds. It cannot give up another node's lock.
// The error wraps fs.ErrNotExist if this node does not hold the lock, and ErrLost if it lost the
// lock before.
func (s *Storage) Unlock(ctx context.Context, name string) error {
	s.trace(ctx, "unlock", name)
	s.mu.Lock()
	lock, ok := s.held[name]
	delete(s.held, name)
	s.mu.Unlock()
	if !ok {
		return pathError("unlock", name, fs.ErrNotExist)
	}
	s.freed.Notify()
	var errs []error
	if rest := lock.bundle.rest(); len(rest) > 0 { // stored in an order that certmagic does not use
		errs = append(errs, s.storeFenced(ctx, name, lock.ref, rest))
	}
	_, a, err := s.at().replica.Writes.DoIn(ctx, state.Command{Session: lock.ref.Session, Change: state.ReleaseRole{Role: keyspace.LockPrefix + name, Claim: lock.ref.Seq}})
	if err == nil {
		err = a.Code.Err()
	} else if !errors.Is(err, ErrLost) {
		s.at().roles.Withdraw(keyspace.LockPrefix+name, lock.ref)
	}
	return pathError("unlock", name, errors.Join(append(errs, err)...))
}

// pathError adds the operation and the key to an error.
func pathError(op, key string, err error) error {
	if err == nil {
		return nil
	}
	if len(key) > 64 {
		key = key[:64] + "…"
	}
	if errors.Is(err, ErrClosed) {
		return ErrClosed
	}
	return fmt.Errorf("flotilla: %w", &fs.PathError{Op: op, Path: key, Err: err})
}
