package boltlog

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

const fileName = "raft.db"

// memDir is an empty directory in memory where the system has one: these tests sync a lot.
func memDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "boltlog")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// newLog makes and opens a log in a new directory.
func newLog(t testing.TB) *Log {
	t.Helper()
	path := filepath.Join(memDir(t), fileName)
	must(t, Create(path))
	return openLog(t, path)
}

// openLog opens a log. It fails the test when the log fails.
func openLog(t testing.TB, path string) *Log {
	t.Helper()
	l, err := tryOpen(path, func(err error) { t.Errorf("log failed: %v", err) })
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func tryOpen(path string, onFail func(error)) (*Log, error) {
	f, err := diskfile.OpenKept(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Open(Options{Path: path, File: f, OnFail: onFail, Logger: slog.New(slog.DiscardHandler)})
}

func entry(index, term uint64, size int) *raft.Log {
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

func entries(first, last, term uint64, size int) (list []*raft.Log) {
	for i := first; i <= last; i++ {
		list = append(list, entry(i, term, size))
	}
	return list
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// state is all that raft could read from a log.
type state struct {
	First, Last    uint64
	Entries        []raft.Log
	Term, VoteTerm uint64
	Candidate      string
}

// all reads everything that raft could read from a log.
func all(t testing.TB, l *Log) state {
	t.Helper()
	var s state
	must(t, l.Run(func() error { return s.read(l, l) }))
	return s
}

func (s *state) read(logs raft.LogStore, stable raft.StableStore) (err error) {
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
	for key, v := range map[string]*uint64{keyTerm: &s.Term, keyVoteTerm: &s.VoteTerm} {
		if *v, err = stable.GetUint64([]byte(key)); err != nil && err.Error() != "not found" {
			return err
		}
	}
	c, err := stable.Get([]byte(keyCandidate))
	if err != nil && err.Error() != "not found" {
		return err
	}
	s.Candidate = string(c)
	return nil
}

// fill makes a log file with everything in it, not larger than 64 KiB, and returns what it holds.
// bbolt leaves older versions of its pages in the file.
func fill(t testing.TB, path string, pageSize int) state {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize, NoFreelistSync: true})
	must(t, err)
	must(t, db.Close())
	must(t, Create(path))
	l := openLog(t, path)
	must(t, l.SetUint64([]byte(keyTerm), 2))
	must(t, l.StoreLogs(entries(1, 12, 2, 190)))
	must(t, l.StoreLogs(entries(13, 18, 2, 190)))
	must(t, l.SetUint64([]byte(keyTerm), 3))
	must(t, l.SetUint64([]byte(keyVoteTerm), 3))
	must(t, l.Set([]byte(keyCandidate), []byte("a candidate")))
	must(t, l.DeleteRange(17, 18)) // a conflict: the same indices follow in term 3
	must(t, l.StoreLogs(entries(17, 18, 3, 190)))
	must(t, l.DeleteRange(1, 2))
	must(t, l.StoreLog(entry(19, 3, 190)))
	must(t, l.StoreLog(entry(20, 3, 190)))
	must(t, l.Close())

	b := fileBytes(t, path)
	m, err := readMeta(bytes.NewReader(b), int64(len(b)))
	must(t, err)
	size := int64(m.pages) * int64(m.pageSize)
	s, err := readLog(path)
	must(t, err)
	if s.First != 3 || s.Last != 20 || len(s.Entries) != 18 || s.Entries[17].Term != 3 {
		t.Fatalf("the log was not filled: %+v", s)
	}
	must(t, os.Truncate(path, 0)) // opening wrote
	put(t, path, b[:size])
	return s
}

// readLog opens a log and reads everything.
func readLog(path string) (s state, err error) {
	l, err := tryOpen(path, nil)
	if err != nil {
		return s, err
	}
	defer l.Close()
	return s, l.Run(func() error { return s.read(l, l) })
}

func isDamaged(t testing.TB, err error, path string) {
	t.Helper()
	d, ok := errors.AsType[*diskfile.DamagedError](err)
	if !ok {
		t.Fatalf("got error %v, want a DamagedError", err)
	}
	if filepath.Clean(d.Path) != filepath.Clean(path) {
		t.Errorf("the error names %s, want %s", d.Path, path)
	}
}

func diff(t testing.TB, want, got any) {
	t.Helper()
	if reflect.DeepEqual(want, got) { // go-cmp takes a while for a large log
		return
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("(-want +got)\n%s", d)
	}
}

func put(t testing.TB, path string, b []byte) {
	t.Helper()
	must(t, os.WriteFile(path, b, 0o600))
}

func fileBytes(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

func verifyImage(b []byte) (*contents, error) { return check(bytes.NewReader(b), int64(len(b)), nil) }
