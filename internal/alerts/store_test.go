package alerts_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// errFull is what a store returns that fails.
var errFull = errors.New("the place for backups is full")

// store keeps backups in memory. It fails if it is told so. The zero value is ready.
type store struct {
	fails atomic.Bool

	mu    sync.Mutex
	files map[string][]byte
}

// Save implements flotilla.BackupStore.
func (s *store) Save(_ context.Context, name string, write func(io.Writer) error) error {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	if s.fails.Load() {
		return errFull
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil {
		s.files = make(map[string][]byte)
	}
	s.files[name] = b.Bytes()
	return nil
}

// Load implements flotilla.BackupStore.
func (s *store) Load(_ context.Context, name string) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file, ok := s.files[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(file)), nil
}

// List implements flotilla.BackupStore.
func (s *store) List(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.files)), nil
}

// Remove implements flotilla.BackupStore.
func (s *store) Remove(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, name)
	return nil
}
