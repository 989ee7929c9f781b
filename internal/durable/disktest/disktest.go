// Package disktest has what the tests of package durable and of its log share: directories in
// memory, entries to store, what a log holds, and comparisons.
package disktest

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// The keys of raft's stable store.
const (
	KeyTerm      = "CurrentTerm"
	KeyVoteTerm  = "LastVoteTerm"
	KeyCandidate = "LastVoteCand"
)

// MemDir returns an empty directory, in memory where the system has one: these tests sync a lot.
func MemDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "durable")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Entry returns an entry with data of that size, the same for each call. Types and extensions vary
// with the index.
func Entry(index, term uint64, size int) *raft.Log {
	r := rand.New(rand.NewPCG(index, term))
	e := &raft.Log{
		Index: index,
		Term:  term,
		Type:  []raft.LogType{raft.LogCommand, raft.LogNoop, raft.LogBarrier}[index%3],
	}
	for range size {
		e.Data = append(e.Data, byte(r.Uint32()))
	}
	if index%4 == 0 {
		e.Extensions = []byte(fmt.Sprintf("extension %d", index))
	}
	return e
}

// Entries returns the entries from the first index to the last.
func Entries(first, last, term uint64, size int) (list []*raft.Log) {
	for i := first; i <= last; i++ {
		list = append(list, Entry(i, term, size))
	}
	return list
}

// Log is all that raft could read from a log.
type Log struct {
	// First and Last are the indexes of its first and last entry, 0 if it has none.
	First, Last uint64
	// Entries are those from First to Last.
	Entries []raft.Log
	// Term is the current term, VoteTerm that of the last vote.
	Term, VoteTerm uint64
	// Candidate is whom the last vote was for.
	Candidate string
}

// Read reads everything.
func (s *Log) Read(logs raft.LogStore, stable raft.StableStore) (err error) {
	if s.First, err = logs.FirstIndex(); err != nil {
		return err
	}
	if s.Last, err = logs.LastIndex(); err != nil {
		return err
	}
	for i := s.First; i <= s.Last && i > 0; i++ {
		var e raft.Log
		if err := logs.GetLog(i, &e); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		s.Entries = append(s.Entries, e)
	}
	for key, v := range map[string]*uint64{KeyTerm: &s.Term, KeyVoteTerm: &s.VoteTerm} {
		if *v, err = stable.GetUint64([]byte(key)); err != nil && err.Error() != "not found" {
			return err
		}
	}
	c, err := stable.Get([]byte(KeyCandidate))
	if err != nil && err.Error() != "not found" {
		return err
	}
	s.Candidate = string(c)
	return nil
}

// IsDamaged fails the test unless err says that the file is damaged.
func IsDamaged(t testing.TB, err error, path string) {
	t.Helper()
	d, ok := errors.AsType[*diskfile.DamagedError](err)
	if !ok {
		t.Fatalf("got error %v, want a DamagedError", err)
	}
	if filepath.Clean(d.Path) != filepath.Clean(path) {
		t.Errorf("the error names %s, want %s", d.Path, path)
	}
}

// Diff fails the test unless the two are alike.
func Diff(t testing.TB, want, got any) {
	t.Helper()
	if reflect.DeepEqual(want, got) { // go-cmp takes a while for a large log
		return
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("(-want +got)\n%s", d)
	}
}

// Put writes a file.
func Put(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// FileBytes returns the content of a file.
func FileBytes(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Tree returns names, modes, times and contents of everything below a directory.
func Tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all[path] = info.Mode().String() + " " + info.ModTime().String()
		if !d.IsDir() {
			all[path] += " " + string(FileBytes(t, path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// IsOpen reports whether this process has a file open, as far as the system tells. Windows neither
// renames nor replaces nor removes such a file.
func IsOpen(t testing.TB, path string) bool {
	t.Helper()
	const mine = "/proc/self/fd"
	open, err := os.ReadDir(mine)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range open {
		if to, err := os.Readlink(filepath.Join(mine, e.Name())); err == nil && to == path {
			return true
		}
	}
	return false
}
