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
// to fail.
type memStorage struct {
	fail atomic.Int64 // so many calls of Load, Store, Lock and TryLock fail; negative: all

	inBundles atomic.Bool // see notifyOfBundles

	mu    sync.Mutex
	data  map[string][]byte
	times map[string]time.Time // when each was stored
	locks map[string]chan struct{}
	deny  func(op, key string) error // called for load, store, delete, list and lock, if it is not nil
	nodes []*Certs                   // observe changes, as from the state machine of each node
}

var errInjected = errors.New("injected fault")

func newMemStorage() *memStorage {
	return &memStorage{data: map[string][]byte{}, times: map[string]time.Time{}, locks: map[string]chan struct{}{}}
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

// notifyOfBundles has nodes observe changes from now on, and those of a certificate when the last
// of its three parts is stored: a cluster commits them in one entry.
func (s *memStorage) notifyOfBundles(nodes ...*Certs) {
	s.inBundles.Store(true)
	s.notify(nodes...)
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
	s.mu.Lock()
	s.data[key] = slices.Clone(value)
	s.times[key] = time.Now()
	s.mu.Unlock()
	if _, part := keyspace.BundlePart(key); part == "" || part == ".json" || !s.inBundles.Load() {
		s.changed(key)
	}
	return nil
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
