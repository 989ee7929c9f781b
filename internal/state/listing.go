package state

import (
	"bytes"
	"slices"
	"syscall"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// Load returns a copy of the value at key. The copy is never nil. The error is absent if there is
// neither a value nor a directory, and syscall.EISDIR for a directory.
func (s *State) Load(key string, absent error) ([]byte, error) {
	if r, ok := s.Record(key); ok {
		return append(make([]byte, 0, len(r.Value)), r.Value...), nil
	}
	if s.isDir(key) {
		return nil, syscall.EISDIR
	}
	return nil, absent
}

// Info describes the value or the directory at a key. A directory has no time and no size.
type Info struct {
	// Modified is when the value was stored, by the writer's clock in Unix nanoseconds.
	Modified int64

	// Size is the number of bytes in the value.
	Size int64

	// Terminal says that the key has a value. Otherwise it is a directory.
	Terminal bool
}

// Stat describes what is at key. The error is absent if there is nothing.
func (s *State) Stat(key string, absent error) (Info, error) {
	if r, ok := s.Record(key); ok {
		return Info{Modified: r.modified, Size: int64(len(r.Value)), Terminal: true}, nil
	}
	if s.isDir(key) {
		return Info{}, nil
	}
	return Info{}, absent
}

// ListAll is List, but its error is absent if there is neither a directory nor a value at dir.
func (s *State) ListAll(dir string, recursive bool, absent error) ([]string, error) {
	keys := s.List(dir, recursive)
	if len(keys) > 0 {
		return keys, nil
	}
	if _, ok := s.Record(dir); ok {
		return []string{}, nil
	}
	return nil, absent
}

// List returns the keys in dir, directories too, in the order of a walk. If recursive, it returns
// those in directories below as well.
func (s *State) List(dir string, recursive bool) []string {
	prefix := keyspace.Below(dir)
	if !recursive {
		return s.children(prefix)
	}
	var keys []string
	var above []byte // the directory of the last key
	for k := range Each(s.Records, prefix) {
		for i := len(prefix); i < len(k); i++ {
			if k[i] == 0 && !bytes.HasPrefix(above, k[:i+1]) {
				keys = append(keys, keyspace.Plain(k[:i]))
			}
		}
		above = k[:bytes.LastIndexByte(k, 0)+1]
		keys = append(keys, keyspace.Plain(k))
	}
	return keys
}

// children lists one level. It steps over what is below, so its cost is that of the level.
func (s *State) children(prefix []byte) []string {
	var keys []string
	from := slices.Clone(prefix)
	for {
		it := s.Records.Root().Iterator()
		it.SeekLowerBound(from)
		k, _, ok := it.Next()
		if !ok || !bytes.HasPrefix(k, prefix) {
			return keys
		}
		end := bytes.IndexByte(k[len(prefix):], 0)
		if end < 0 {
			end = len(k) - len(prefix)
		}
		child := k[:len(prefix)+end]
		keys = append(keys, keyspace.Plain(child))
		from = append(slices.Clone(child), 1) // the first key after child and all that is below it
	}
}
