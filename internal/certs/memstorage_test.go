package certs

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// memStorage is a certmagic.Storage in memory for several nodes of one test. Its calls can be made
// to fail. As in a cluster, the parts of a certificate that are stored under its issue lock appear
// at once, when the last part is stored.
type memStorage struct {
	fail atomic.Int64 // so many calls of Load, Store, Lock and TryLock fail; negative: all

	mu    sync.Mutex
	data  map[string][]byte
	parts map[string][]byte    // of certificates that are not complete
	times map[string]time.Time // when each was stored
	locks map[string]chan struct{}
	deny  func(op, key string) error // called for load, store, delete, list and lock, if it is not nil
	nodes []*Certs                   // observe changes, as from the state machine of each node
}

var errInjected = errors.New("injected fault")

func newMemStorage() *memStorage {
	return &memStorage{data: map[string][]byte{}, parts: map[string][]byte{}, times: map[string]time.Time{}, locks: map[string]chan struct{}{}}
}

func (s *memStorage) fault() error {
	if n := s.fail.Load(); n < 0 || n > 0 && s.fail.CompareAndSwap(n, n-1) {
		return errInjected
	}
	return nil
}

func (s *memStorage) denied(op, key string) error {
	s.mu.Lock()
	deny := s.deny
	s.mu.Unlock()
	if deny == nil {
		return nil
	}
	return deny(op, key)
}

// denyAll makes deny decide on calls from now on.
func (s *memStorage) denyAll(deny func(op, key string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deny = deny
}

// notify has nodes observe changes from now on.
func (s *memStorage) notify(nodes ...*Certs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes = nodes
}

func (s *memStorage) changed(key string) {
	s.mu.Lock()
	nodes := s.nodes
	s.mu.Unlock()
	if parts := strings.Split(key, "/"); parts[0] == "certificates" && len(parts) > 2 {
		for _, c := range nodes {
			c.Stored(parts[2])
		}
	}
}

func (s *memStorage) Store(_ context.Context, key string, value []byte) error {
	if err := errors.Join(s.fault(), s.denied("store", key)); err != nil {
		return err
	}
	if s.put(key, slices.Clone(value)) {
		s.changed(key)
	}
	return nil
}

// put stores a value, unless it is a part of a certificate that is not complete.
func (s *memStorage) put(key string, value []byte) (stored bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	site, part := keyspace.BundlePart(key)
	if part != "" && part != ".json" && s.issuing(site) {
		s.parts[key] = value
		return false
	}
	values := map[string][]byte{key: value}
	if stem, ok := strings.CutSuffix(key, ".json"); ok {
		for _, other := range []string{stem + ".key", stem + ".crt"} {
			if part, ok := s.parts[other]; ok {
				values[other] = part
				delete(s.parts, other)
			}
		}
	}
	for key, value := range values {
		s.data[key], s.times[key] = value, time.Now()
	}
	return true
}

// issuing reports whether somebody holds the issue lock of a certificate. s.mu is held.
func (s *memStorage) issuing(site string) bool {
	for lock, holders := range s.locks {
		name, ok := strings.CutPrefix(lock, keyspace.IssueLock)
		if ok && certmagic.StorageKeys.Safe(name) == site && len(holders) > 0 {
			return true
		}
	}
	return false
}

func (s *memStorage) Load(_ context.Context, key string) ([]byte, error) {
	if err := errors.Join(s.fault(), s.denied("load", key)); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.data[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(value), nil
}

func (s *memStorage) Delete(_ context.Context, key string) error {
	if err := s.denied("delete", key); err != nil {
		return err
	}
	s.mu.Lock()
	if _, ok := s.parts[key]; ok { // certmagic takes back what it has stored
		delete(s.parts, key)
		s.mu.Unlock()
		return nil
	}
	maps.DeleteFunc(s.data, func(k string, _ []byte) bool { return k == key || strings.HasPrefix(k, key+"/") })
	s.mu.Unlock()
	s.changed(key)
	return nil
}

func (s *memStorage) Exists(_ context.Context, key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.data[key]
	return ok
}

func (s *memStorage) List(_ context.Context, dir string, recursive bool) ([]string, error) {
	if err := s.denied("list", dir); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if dir != "" {
		dir += "/"
	}
	keys := make(map[string]bool)
	for key := range s.data {
		rest, ok := strings.CutPrefix(key, dir)
		for i := range rest {
			if ok && rest[i] == '/' && (recursive || strings.IndexByte(rest, '/') == i) {
				keys[dir+rest[:i]] = true
			}
		}
		if ok && (recursive || !strings.Contains(rest, "/")) {
			keys[key] = true
		}
	}
	if len(keys) == 0 {
		return nil, fs.ErrNotExist
	}
	return slices.Sorted(maps.Keys(keys)), nil
}

func (s *memStorage) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	if err := s.denied("stat", key); err != nil {
		return certmagic.KeyInfo{}, err
	}
	if !s.Exists(context.Background(), key) {
		return certmagic.KeyInfo{}, fs.ErrNotExist
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return certmagic.KeyInfo{Key: key, IsTerminal: true, Modified: s.times[key]}, nil
}

// lock returns the lock of that name: it holds one element while somebody has it.
func (s *memStorage) lock(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks[name] == nil {
		s.locks[name] = make(chan struct{}, 1)
	}
	return s.locks[name]
}

func (s *memStorage) Lock(ctx context.Context, name string) error {
	if err := errors.Join(s.fault(), s.denied("lock", name)); err != nil {
		return err
	}
	select {
	case s.lock(name) <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *memStorage) TryLock(_ context.Context, name string) (bool, error) {
	if err := errors.Join(s.fault(), s.denied("lock", name)); err != nil {
		return false, err
	}
	select {
	case s.lock(name) <- struct{}{}:
		return true, nil
	default:
		return false, nil
	}
}

func (s *memStorage) Unlock(_ context.Context, name string) error {
	select {
	case <-s.lock(name):
		return nil
	default:
		return fs.ErrNotExist
	}
}
