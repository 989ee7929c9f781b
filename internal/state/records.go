package state

import (
	"bytes"
	"slices"
	"strings"
	"syscall"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// Load answers Storage.Load; absent is what it says of what is not there.
func (s *State) Load(key string, absent error) ([]byte, error) {
	if r, ok := s.Records.Get(keyspace.Tree(key)); ok {
		// never nil, as a file's content is never
		return append(make([]byte, 0, len(r.Value)), r.Value...), nil
	}
	if s.isDir(key) {
		return nil, syscall.EISDIR
	}
	return nil, absent
}

// ListAll answers Storage.List.
func (s *State) ListAll(dir string, recursive bool, absent error) ([]string, error) {
	keys := s.List(dir, recursive)
	if len(keys) > 0 {
		return keys, nil
	}
	if _, ok := s.Records.Get(keyspace.Tree(dir)); ok {
		return []string{}, nil
	}
	return nil, absent
}

// Info describes the value or the directory at a key. A directory has no time and no size.
type Info struct {
	Modified int64 // Unix nanoseconds of the writer's clock
	Size     int64
	Terminal bool // it is a value
}

// Stat describes what is at key. absent is the error for what is not there.
func (s *State) Stat(key string, absent error) (Info, error) {
	if r, ok := s.Records.Get(keyspace.Tree(key)); ok {
		return Info{Modified: r.modified, Size: int64(len(r.Value)), Terminal: true}, nil
	}
	if s.isDir(key) {
		return Info{}, nil
	}
	return Info{}, absent
}

// List returns the keys below dir in the order of a walk: with directories, if recursive with all that is below them.
func (s *State) List(dir string, recursive bool) []string {
	prefix := keyspace.Below(dir)
	it := s.Records.Root().Iterator()
	it.SeekPrefix(prefix)
	if !recursive {
		return s.children(prefix)
	}
	var keys []string
	var above []byte // the directory of the last key
	for k, _, ok := it.Next(); ok; k, _, ok = it.Next() {
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

// children lists one level and steps over what is below it, so that its cost is that of the level.
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

// Value is one stored value. Its slice is never written to.
type Value struct {
	Value    []byte
	modified int64  // Unix nanoseconds of the writer's clock
	Index    uint64 // of the entry that stored it
}

// put stores all of the records or none.
func (s *State) put(index uint64, c *Command, fx *Effects) Code {
	records, _ := decodeRecords(c.Value) // DecodeCommand has seen that it can
	next := *s
	for _, r := range records {
		if code := next.store(index, c, r.Key, r.Value, fx); code != CodeOK {
			return code
		}
	}
	*s = next
	return CodeOK
}

func (s *State) store(index uint64, c *Command, key string, value []byte, fx *Effects) Code {
	if s.isDir(key) {
		return CodeIsDir
	}
	for i := strings.IndexByte(key, '/'); i >= 0; {
		if _, ok := s.Records.Get(keyspace.Tree(key[:i])); ok {
			return CodeNotDir
		}
		next := strings.IndexByte(key[i+1:], '/')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	b, grows := keyspace.OfRecord(key), s.RecordGrows(key, value)
	if !s.HasRoom(b, grows, int64(c.Number)) {
		return CodeFull
	}
	s.Used[b] += grows
	s.Records, _, _ = s.Records.Insert(keyspace.Tree(key), &Value{Value: value, modified: c.Time, Index: index})
	fx.record(key)
	_, marked := s.Records.Get(keyspace.Tree(key + compromised))
	if strings.HasSuffix(key, ".key"+compromised) || marked { // the old certificate is served until there is another key
		s.Tickets = nil // clients that resume would go on seeing the certificate of that key
		fx.ticket(true)
	}
	return CodeOK
}

// RecordGrows returns by how much the state grows if value is stored at key.
func (s *State) RecordGrows(key string, value []byte) int64 {
	if old, ok := s.Records.Get(keyspace.Tree(key)); ok {
		return int64(len(value) - len(old.Value))
	}
	return int64(len(key) + len(value))
}

// HasRoom reports whether a budget has room for so much more. The limit comes with the command, so every node finds the same.
func (s *State) HasRoom(b keyspace.Budget, grows, maxState int64) bool {
	return grows <= 0 || s.Used[b]+grows <= b.Limit(maxState)
}

// Bytes returns how large the state is.
func (s *State) Bytes() (sum int64) {
	for _, used := range s.Used {
		sum += used
	}
	return sum
}

// isDir reports whether there are keys below key. The empty key is above all.
func (s *State) isDir(key string) bool {
	it := s.Records.Root().Iterator()
	it.SeekPrefix(keyspace.Below(key))
	_, _, ok := it.Next()
	return ok
}

func (s *State) remove(key string, fx *Effects) {
	txn := s.Records.Txn()
	if key != "" {
		if old, ok := txn.Delete(keyspace.Tree(key)); ok {
			s.Used[keyspace.OfRecord(key)] -= int64(len(key) + len(old.Value))
			fx.record(key)
		}
	}
	it := s.Records.Root().Iterator()
	it.SeekPrefix(keyspace.Below(key))
	for k, r, ok := it.Next(); ok; k, r, ok = it.Next() {
		s.Used[keyspace.OfRecord(string(k))] -= int64(len(k) + len(r.Value))
		fx.record(keyspace.Plain(k))
	}
	txn.DeletePrefix(keyspace.Below(key))
	s.Records = txn.CommitOnly()
}
