package durable

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

// The keys of raft's stable store.
const (
	keyTerm      = "CurrentTerm"
	keyVoteTerm  = "LastVoteTerm"
	keyCandidate = "LastVoteCand"
)

// memDir is an empty directory in memory where the system has one: these tests sync a lot.
func memDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "durable")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func lock(t testing.TB, path string) *Dir {
	t.Helper()
	d, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func openTestLog(t testing.TB, d *Dir, create bool) *Log {
	t.Helper()
	l, err := d.OpenLog(LogOptions{Create: create, Failed: func(err error) { t.Errorf("log failed: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
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

// all reads everything that raft could read from a log.
func all(t testing.TB, l *Log) state {
	t.Helper()
	var s state
	must(t, l.Run(func() error { return s.read(l, l) }))
	return s
}

// state is what a data directory holds.
type state struct {
	First, Last    uint64
	Entries        []raft.Log
	Term, VoteTerm uint64
	Candidate      string
	Small          map[string]string
	Snapshot       raft.SnapshotMeta
	Content        string
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

func isDamaged(t testing.TB, err error, path string) {
	t.Helper()
	d, ok := errors.AsType[*DamagedError](err)
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
