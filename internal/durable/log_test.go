package durable

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// TestRandomOperations compares a log with raft's in-memory store over random
// operations. The file must pass its own check after each: bbolt's way of writing is what the check demands.
func TestRandomOperations(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 7))
		path := memDir(t)
		d := lock(t, path)
		l := openTestLog(t, d, true)
		model := raft.NewInmemStore()
		var first, last, term uint64 = 1, 0, 1
		var want state
		steps := 150
		if testing.Short() {
			steps = 40
		}
		for step := range steps {
			switch k := r.IntN(20); {
			case k < 11:
				n := 1 + r.Uint64N(64)
				size := r.IntN(300)
				if r.IntN(10) == 0 {
					size = r.IntN(20000)
				}
				batch := entries(last+1, last+n, term, size)
				must(t, l.StoreLogs(batch))
				must(t, model.StoreLogs(batch))
				last += n
			case k < 13 && last > first: // conflict
				from := first + 1 + r.Uint64N(last-first)
				must(t, l.DeleteRange(from, last))
				must(t, model.DeleteRange(from, last))
				last = from - 1
				term++
			case k < 15 && last > first: // compaction
				to := first + r.Uint64N(last-first)
				must(t, l.DeleteRange(first, to))
				must(t, model.DeleteRange(first, to))
				first = to + 1
			case k < 16 && last > first: // the remedy for a conflicting snapshot
				at := first + r.Uint64N(last-first+1)
				e := &raft.Log{Index: at, Term: term, Type: raft.LogNoop}
				must(t, l.StoreLog(e))
				must(t, model.StoreLog(e))
			case k < 17 && last > first: // all
				must(t, l.DeleteRange(0, last))
				model = raft.NewInmemStore()
				first = last + 1 + r.Uint64N(3)
				last = first - 1
			case k < 18:
				term++
				want.Term = term
				must(t, l.SetUint64([]byte(keyTerm), term))
			case k < 19:
				want.VoteTerm, want.Candidate = term, string(make([]byte, r.IntN(maxCandidate)))
				must(t, l.SetUint64([]byte(keyVoteTerm), term))
				must(t, l.Set([]byte(keyCandidate), []byte(want.Candidate)))
			default:
				must(t, l.Close())
				l = openTestLog(t, d, false)
			}
			if _, err := inspect(filepath.Join(path, logName)); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
		}
		must(t, l.Close())
		l = openTestLog(t, d, false)
		m := raft.NewInmemStore()
		must(t, want.read(model, m))
		want.Term, want.VoteTerm, want.Candidate = all(t, l).Term, all(t, l).VoteTerm, all(t, l).Candidate
		diff(t, want, all(t, l))
		must(t, l.Close())
	}
}

func TestOpenLog(t *testing.T) {
	path := t.TempDir()
	d := lock(t, path)
	if d.HasLog() {
		t.Error("an empty directory has a log")
	}
	_, err := d.OpenLog(LogOptions{})
	isDamaged(t, err, path)
	l := openTestLog(t, d, true)
	if !d.HasLog() || l.Size() == 0 {
		t.Error("there is no log")
	}
	for _, key := range []string{keyTerm, keyVoteTerm} {
		if _, err := l.GetUint64([]byte(key)); err == nil || err.Error() != "not found" {
			t.Errorf("GetUint64(%s) of a new log: %v", key, err)
		}
	}
	if _, err := l.Get([]byte(keyCandidate)); err == nil || err.Error() != "not found" {
		t.Errorf("Get of a new log: %v", err)
	}
	for _, err := range []error{l.Set([]byte("other"), nil), l.SetUint64([]byte("other"), 1), l.Set([]byte(keyCandidate), make([]byte, maxCandidate+1))} {
		if err == nil || !strings.Contains(err.Error(), "unknown key") && !strings.Contains(err.Error(), "is too long") {
			t.Errorf("an unknown key or a long value was stored: %v", err)
		}
	}
	must(t, l.Close())
	must(t, l.Close())
	if _, err := d.OpenLog(LogOptions{Create: true}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over a log: %v", err)
	}
	must(t, d.RemoveState())
	if d.HasLog() {
		t.Error("RemoveState left the log")
	}
	must(t, d.RemoveState())
	must(t, openTestLog(t, d, true).Close())
}

// TestCrashInDeletion opens the file as a crash leaves it between the three
// transactions of a deletion, and between the two that opening makes.
func TestCrashInDeletion(t *testing.T) {
	for _, test := range []struct {
		name        string
		lo, hi      uint64
		first, last uint64
		fail        int // which call into bbolt no longer happens
	}{
		{name: "prefix announced", lo: 1, hi: 5, fail: 1, first: 1, last: 10},
		{name: "prefix deleted", lo: 1, hi: 5, fail: 2, first: 6, last: 10},
		{name: "suffix announced", lo: 7, hi: 10, fail: 1, first: 1, last: 10},
		{name: "suffix deleted", lo: 7, hi: 10, fail: 2, first: 1, last: 6},
		{name: "all deleted", lo: 1, hi: 10, fail: 2, first: 0, last: 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := lock(t, memDir(t))
			l := openTestLog(t, d, true)
			must(t, l.StoreLogs(entries(1, 10, 1, 50)))
			f := &faulty{boltStore: l.store, after: test.fail, err: errors.New("crash")}
			l.store, l.onFail = f, nil
			if err := l.Run(func() error { return l.DeleteRange(test.lo, test.hi) }); !errors.Is(err, f.err) {
				t.Fatalf("got %v", err)
			}
			must(t, f.boltStore.Close())
			for range 3 { // crashes at open too: the mark, then raft-boltdb's own transaction
				path := filepath.Join(d.Path(), logName)
				c, err := inspect(path)
				must(t, err)
				must(t, markOpening(path, c))
				_, err = inspect(path)
				must(t, err)
				s, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions()})
				must(t, err)
				must(t, s.Close())
				_, err = inspect(path)
				must(t, err)
			}
			l = openTestLog(t, d, false)
			if s := all(t, l); s.First != test.first || s.Last != test.last {
				t.Errorf("got entries %d to %d, want %d to %d", s.First, s.Last, test.first, test.last)
			}
			must(t, l.StoreLog(entry(l.now().last+1, 2, 10)))
			must(t, l.Close())
			openTestLog(t, d, false)
		})
	}
}

// faulty is a store that fails after a number of writes.
type faulty struct {
	boltStore
	after  int
	err    error
	panics bool
	reads  bool
}

func (f *faulty) broken() bool { f.after--; return f.after < 0 }

func (f *faulty) fault() error {
	if f.panics {
		panic(f.err)
	}
	return f.err
}

func (f *faulty) StoreLogs(logs []*raft.Log) error {
	if f.broken() {
		return f.fault()
	}
	return f.boltStore.StoreLogs(logs)
}

func (f *faulty) DeleteRange(lo, hi uint64) error {
	if f.broken() {
		return f.fault()
	}
	return f.boltStore.DeleteRange(lo, hi)
}

func (f *faulty) Set(k, v []byte) error {
	if f.broken() {
		return f.fault()
	}
	return f.boltStore.Set(k, v)
}

func (f *faulty) GetLog(i uint64, e *raft.Log) error {
	if f.reads && f.broken() {
		return f.fault()
	}
	return f.boltStore.GetLog(i, e)
}
