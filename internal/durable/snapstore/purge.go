package snapstore

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// ErrInUse says that a snapshot that is to be removed is needed for a moment. Raft may send it to a
// follower, for example: what is overwritten meanwhile would reach the follower.
var ErrInUse = errors.New("a former snapshot is in use")

// Purge overwrites and removes the snapshots that end before an index. The newest one stays in any
// case. The error is ErrInUse, or the system's; it may be tried again. Raft may write and remove
// snapshots meanwhile.
func (s *Store) Purge(before uint64) error {
	names, _, err := list(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for i, n := range names {
		if i == 0 || n.index >= before {
			continue
		}
		if kept := s.places.Snapshot(); kept != nil && kept.Dir == filepath.Join(s.dir, n.id) {
			return ErrInUse // it was the newest a moment ago, and would be written anew if it were missing
		}
		doomed := filepath.Join(s.dir, n.id+"-former"+diskfile.TmpSuffix) // which nobody opens
		err := s.readers.unlessRead(n.id, func() error { return os.Rename(filepath.Join(s.dir, n.id), doomed) })
		if errors.Is(err, os.ErrNotExist) {
			continue // raft was quicker
		}
		if err == nil {
			err = errors.Join(diskfile.EraseAt(filepath.Join(doomed, StateName), nil), os.RemoveAll(doomed))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readers counts who reads which snapshot. The zero readers is ready.
type readers struct {
	mu sync.Mutex
	n  map[string]int // by the snapshot's ID
}

// add counts one more, or with -1 one less.
func (r *readers) add(id string, one int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == nil {
		r.n = make(map[string]int)
	}
	if r.n[id] += one; r.n[id] == 0 {
		delete(r.n, id)
	}
}

// unlessRead calls f, which must be quick, unless somebody reads the snapshot. Nobody begins to
// meanwhile.
func (r *readers) unlessRead(id string, f func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n[id] > 0 {
		return ErrInUse
	}
	return f()
}

// counted is the content of a snapshot that is read.
type counted struct {
	io.ReadCloser
	once sync.Once
	done func()
}

// Close implements io.Closer.
func (c *counted) Close() error {
	c.once.Do(c.done)
	return c.ReadCloser.Close()
}
