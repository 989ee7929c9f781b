package flotilla

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/certmagic"
)

// readTimeout is how long a read on a node that has not caught up yet waits for that, before it answers what is there.
const readTimeout = 2 * time.Second

// Storage is the cluster's storage, on every node the same. It implements certmagic.Storage and certmagic.TryLocker with the
// semantics of certmagic's FileStorage: keys are paths, and what lies above a key is a directory, which exists as long as
// there is something in it.
//
// A write returns when it is committed and every node that is there has applied it, so that whoever reads on any node after
// that finds it. It waits for a leader, for 30 seconds at most; an error that wraps ErrNoLeader leaves open whether it takes
// effect. A read is answered from this node's memory, without network. A node that has not caught up since its start waits
// for that for two seconds; then it answers with what it has, and with ErrNotReady rather than say that something does not exist.
//
// Locks exclude each other across the cluster. A lock is lost when the cluster takes its node for gone. What that node was writing
// then is refused; what it begins to write when it is back is not, so a lock saves work done twice and fences nothing.
type Storage struct {
	n *Node

	mu   sync.Mutex
	held map[string]heldLock
}

// heldLock is a lock that this node's callers hold.
type heldLock struct{ session, seq uint64 }

var (
	_ certmagic.Storage   = (*Storage)(nil)
	_ certmagic.TryLocker = (*Storage)(nil)
)

// String names the storage in logs.
func (s *Storage) String() string { return "flotilla(" + s.n.name + ")" }

// Store puts value at key, in place of what was there. It fails if there are keys below key, or a value above it, and with ErrTooLarge
// if key or value is longer than MaxName or MaxValue or the state has no room.
func (s *Storage) Store(ctx context.Context, key string, value []byte) error {
	clean, err := cleanKey(key)
	if err == nil && clean == "" {
		err = fmt.Errorf("%w: the key is empty", fs.ErrInvalid)
	}
	if err == nil {
		err = s.room(clean, value)
	}
	if err != nil {
		return pathError("store", key, err)
	}
	a, err := s.n.writes.do(ctx, command{op: opStore, key: clean, value: value, number: s.limit()})
	if err == nil {
		err = codeError(a.code)
	}
	return pathError("store", key, err)
}

// room checks a write against the limits.
func (s *Storage) room(key string, value []byte) error {
	if len(value) > MaxValue {
		return fmt.Errorf("%w: the value has %d bytes, the limit is %d", ErrTooLarge, len(value), MaxValue)
	}
	st := s.n.fsm.state()
	grows := int64(len(key) + len(value))
	if old, ok := st.records.Get(treeKey(key)); ok {
		grows = int64(len(value) - len(old.value))
	}
	if grows > 0 && st.bytes+grows > s.n.cfg.MaxState {
		return fmt.Errorf("%w: the state has %d bytes, the limit is %d; delete something or raise Config.MaxState", ErrTooLarge, st.bytes, s.n.cfg.MaxState)
	}
	return nil
}

// limit is what the state may have at the most, for a command.
func (s *Storage) limit() uint64 { return uint64(s.n.cfg.MaxState) }

// Load returns a copy of the value at key. A key that does not exist is fs.ErrNotExist; a directory is another error.
func (s *Storage) Load(ctx context.Context, key string) ([]byte, error) {
	clean, err := cleanKey(key)
	if err != nil {
		return nil, pathError("load", key, err)
	}
	st, current := s.read(ctx)
	if r, ok := st.records.Get(treeKey(clean)); ok {
		// never nil, as a file's content is never
		return append(make([]byte, 0, len(r.value)), r.value...), nil
	}
	if st.isDir(clean) {
		return nil, pathError("load", key, syscall.EISDIR)
	}
	return nil, pathError("load", key, s.absent(current))
}

// Delete removes key and all below it. What does not exist is deleted already.
func (s *Storage) Delete(ctx context.Context, key string) error {
	clean, err := cleanKey(key)
	if err == nil {
		_, err = s.n.writes.do(ctx, command{op: opDelete, key: clean})
	}
	return pathError("delete", key, err)
}

// Exists reports whether there is a value at key or below it. It cannot tell of an error: before this node has caught up, false may mean
// that it does not know.
func (s *Storage) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

// List returns the keys in the directory at dir, values and directories, in the order of a walk; if recursive, with all that is below
// them. A directory that does not exist is fs.ErrNotExist; of a value the list is empty.
func (s *Storage) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	clean, err := cleanKey(dir)
	if err != nil {
		return nil, pathError("list", dir, err)
	}
	st, current := s.read(ctx)
	keys := st.list(clean, recursive)
	if len(keys) > 0 {
		return keys, nil
	}
	if _, ok := st.records.Get(treeKey(clean)); ok {
		return []string{}, nil
	}
	return nil, pathError("list", dir, s.absent(current))
}

// Stat describes the value or the directory at key. The time of modification is the writer's clock's; a directory has none.
func (s *Storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	clean, err := cleanKey(key)
	if err != nil {
		return certmagic.KeyInfo{}, pathError("stat", key, err)
	}
	st, current := s.read(ctx)
	if r, ok := st.records.Get(treeKey(clean)); ok {
		return certmagic.KeyInfo{Key: key, Modified: time.Unix(0, r.modified), Size: int64(len(r.value)), IsTerminal: true}, nil
	}
	if st.isDir(clean) {
		return certmagic.KeyInfo{Key: key}, nil
	}
	return certmagic.KeyInfo{}, pathError("stat", key, s.absent(current))
}

// read returns the state to answer from, and whether this node has caught up.
func (s *Storage) read(ctx context.Context) (*state, bool) {
	n := s.n
	if !n.current.Load() && n.works.Err() == nil {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		ctx, stop := n.whileOpen(ctx)
		defer stop()
		n.Ready(ctx) // its error is what current says below
	}
	current := n.current.Load()
	return n.fsm.state(), current
}

// absent is the error for what is not in the state.
func (s *Storage) absent(current bool) error {
	if current {
		return fs.ErrNotExist
	}
	return ErrNotReady
}

// Lock waits until this caller holds the lock of that name, alone in the cluster. Those who wait get it in the order in which they
// came. When it returns, this node's state holds everything that was written before the lock was granted.
func (s *Storage) Lock(ctx context.Context, name string) error {
	held, err := s.lock(ctx, name, true)
	if err == nil && !held {
		err = ErrLost
	}
	return pathError("lock", name, err)
}

// TryLock is Lock for those who do not wait: it reports whether the lock was free.
func (s *Storage) TryLock(ctx context.Context, name string) (bool, error) {
	held, err := s.lock(ctx, name, false)
	return held, pathError("lock", name, err)
}

func (s *Storage) lock(ctx context.Context, name string, wait bool) (bool, error) {
	if len(name) > MaxName {
		return false, fmt.Errorf("%w: the name has %d bytes, the limit is %d", ErrTooLarge, len(name), MaxName)
	}
	c := command{op: opLock, key: name, flag: wait, number: s.limit()}
	for {
		session, a, err := s.n.writes.doIn(ctx, c)
		if errors.Is(err, ErrLost) {
			continue // the claim went with the session, and the next one belongs to a new one
		}
		if err != nil {
			if session != 0 {
				s.withdraw(name, heldLock{session, a.seq})
			}
			return false, err
		}
		if a.code == codeHeld {
			return false, nil
		}
		if err := codeError(a.code); err != nil {
			return false, err
		}
		mine := heldLock{session, a.seq}
		granted, err := s.granted(ctx, name, mine)
		if err != nil {
			s.withdraw(name, mine)
			return false, err
		}
		if granted {
			s.mu.Lock()
			s.held[name] = mine
			s.mu.Unlock()
			return true, nil
		}
	}
}

// granted waits until the claim is the first of its queue, or is gone from it.
func (s *Storage) granted(ctx context.Context, name string, mine heldLock) (bool, error) {
	ctx, stop := s.n.whileOpen(ctx)
	defer stop()
	var granted bool
	_, err := s.n.fsm.wait(ctx, func(st *state) bool {
		queue := st.lock(name)
		for i, q := range queue {
			if q.node == s.n.id && q.session == mine.session && q.seq == mine.seq {
				granted = i == 0
				return granted
			}
		}
		return true
	})
	return granted, err
}

// withdraw takes a claim back that its caller no longer waits for. It is not waited for: the caller's context is over.
func (s *Storage) withdraw(name string, mine heldLock) {
	s.n.tasks.run(func() {
		for s.n.works.Err() == nil { // as long as the session lives, so does the claim
			_, _, err := s.n.writes.doIn(s.n.works, command{op: opUnlock, key: name, number: mine.seq, session: mine.session})
			if err == nil || errors.Is(err, ErrLost) {
				return
			}
		}
	})
}

// Unlock gives up a lock that this node's callers hold; another node's cannot be given up. The error wraps fs.ErrNotExist if it is not held,
// and ErrLost if it was lost before.
func (s *Storage) Unlock(ctx context.Context, name string) error {
	s.mu.Lock()
	mine, ok := s.held[name]
	delete(s.held, name)
	s.mu.Unlock()
	if !ok {
		return pathError("unlock", name, fs.ErrNotExist)
	}
	_, a, err := s.n.writes.doIn(ctx, command{op: opUnlock, key: name, number: mine.seq, session: mine.session})
	if err == nil {
		err = codeError(a.code)
	} else if !errors.Is(err, ErrLost) {
		s.withdraw(name, mine)
	}
	return pathError("unlock", name, err)
}

// cleanKey brings a key into its one form.
func cleanKey(key string) (string, error) {
	if len(key) > MaxName {
		return "", fmt.Errorf("%w: the key has %d bytes, the limit is %d", ErrTooLarge, len(key), MaxName)
	}
	if strings.IndexByte(key, 0) >= 0 {
		return "", fmt.Errorf("%w: the key has a zero byte in it", fs.ErrInvalid)
	}
	if isClean(key) {
		return key, nil
	}
	return strings.TrimPrefix(path.Clean("/"+key), "/"), nil
}

// isClean reports whether key is in its one form: no part of it is empty, or a dot or two.
func isClean(key string) bool {
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part == "." || part == ".." {
			return key == ""
		}
	}
	return true
}

// codeError is the error that an outcome stands for.
func codeError(c code) error {
	switch c {
	case codeIsDir:
		return syscall.EISDIR
	case codeNotDir:
		return syscall.ENOTDIR
	case codeNotHeld:
		return ErrLost
	case codeFull:
		return fmt.Errorf("%w: the state has reached its limit; delete something or raise Config.MaxState", ErrTooLarge)
	}
	return nil
}

// pathError says which operation failed on what.
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
