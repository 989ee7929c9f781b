package flotilla

import (
	"bytes"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"slices"
	"strings"
	"syscall"
)

// load answers Storage.Load; absent is what it says of what is not there.
func (s *state) load(key string, absent error) ([]byte, error) {
	if r, ok := s.records.Get(keyspace.Tree(key)); ok {
		// never nil, as a file's content is never
		return append(make([]byte, 0, len(r.value)), r.value...), nil
	}
	if s.isDir(key) {
		return nil, syscall.EISDIR
	}
	return nil, absent
}

// listAll answers Storage.List.
func (s *state) listAll(dir string, recursive bool, absent error) ([]string, error) {
	keys := s.list(dir, recursive)
	if len(keys) > 0 {
		return keys, nil
	}
	if _, ok := s.records.Get(keyspace.Tree(dir)); ok {
		return []string{}, nil
	}
	return nil, absent
}

// info describes the value or the directory at a key. A directory has no time and no size.
type info struct {
	modified int64 // Unix nanoseconds of the writer's clock
	size     int64
	terminal bool // it is a value
}

// stat describes what is at key. absent is the error for what is not there.
func (s *state) stat(key string, absent error) (info, error) {
	if r, ok := s.records.Get(keyspace.Tree(key)); ok {
		return info{modified: r.modified, size: int64(len(r.value)), terminal: true}, nil
	}
	if s.isDir(key) {
		return info{}, nil
	}
	return info{}, absent
}

// list returns the keys below dir in the order of a walk: with directories, if recursive with all that is below them.
func (s *state) list(dir string, recursive bool) []string {
	prefix := keyspace.Below(dir)
	it := s.records.Root().Iterator()
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
func (s *state) children(prefix []byte) []string {
	var keys []string
	from := slices.Clone(prefix)
	for {
		it := s.records.Root().Iterator()
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

// record is one stored value. Its slice is never written to.
type record struct {
	value    []byte
	modified int64  // Unix nanoseconds of the writer's clock
	index    uint64 // of the entry that stored it
}

// put stores all of the records or none.
func (s *state) put(index uint64, c *command, fx *effects) code {
	records, _ := decodeRecords(c.value) // decodeCommand has seen that it can
	next := *s
	for _, r := range records {
		if code := next.store(index, c, r.key, r.value, fx); code != codeOK {
			return code
		}
	}
	*s = next
	return codeOK
}

func (s *state) store(index uint64, c *command, key string, value []byte, fx *effects) code {
	if s.isDir(key) {
		return codeIsDir
	}
	for i := strings.IndexByte(key, '/'); i >= 0; {
		if _, ok := s.records.Get(keyspace.Tree(key[:i])); ok {
			return codeNotDir
		}
		next := strings.IndexByte(key[i+1:], '/')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	b, grows := keyspace.OfRecord(key), s.recordGrows(key, value)
	if !s.hasRoom(b, grows, int64(c.number)) {
		return codeFull
	}
	s.used[b] += grows
	s.records, _, _ = s.records.Insert(keyspace.Tree(key), &record{value: value, modified: c.time, index: index})
	fx.record(key)
	_, marked := s.records.Get(keyspace.Tree(key + compromised))
	if strings.HasSuffix(key, ".key"+compromised) || marked { // the old certificate is served until there is another key
		s.tickets = nil // clients that resume would go on seeing the certificate of that key
		fx.ticket(true)
	}
	return codeOK
}

// recordGrows returns by how much the state grows if value is stored at key.
func (s *state) recordGrows(key string, value []byte) int64 {
	if old, ok := s.records.Get(keyspace.Tree(key)); ok {
		return int64(len(value) - len(old.value))
	}
	return int64(len(key) + len(value))
}

// hasRoom reports whether a budget has room for so much more. The limit comes with the command, so every node finds the same.
func (s *state) hasRoom(b keyspace.Budget, grows, maxState int64) bool {
	return grows <= 0 || s.used[b]+grows <= b.Limit(maxState)
}

// bytes returns how large the state is.
func (s *state) bytes() (sum int64) {
	for _, used := range s.used {
		sum += used
	}
	return sum
}

// isDir reports whether there are keys below key. The empty key is above all.
func (s *state) isDir(key string) bool {
	it := s.records.Root().Iterator()
	it.SeekPrefix(keyspace.Below(key))
	_, _, ok := it.Next()
	return ok
}

func (s *state) remove(key string, fx *effects) {
	txn := s.records.Txn()
	if key != "" {
		if old, ok := txn.Delete(keyspace.Tree(key)); ok {
			s.used[keyspace.OfRecord(key)] -= int64(len(key) + len(old.value))
			fx.record(key)
		}
	}
	it := s.records.Root().Iterator()
	it.SeekPrefix(keyspace.Below(key))
	for k, r, ok := it.Next(); ok; k, r, ok = it.Next() {
		s.used[keyspace.OfRecord(string(k))] -= int64(len(k) + len(r.value))
		fx.record(keyspace.Plain(k))
	}
	txn.DeletePrefix(keyspace.Below(key))
	s.records = txn.CommitOnly()
}
