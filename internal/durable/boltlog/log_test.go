package boltlog

import (
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// TestRandomOperations compares a log with raft's in-memory store over random operations. The file
// must pass its check after each, because the check demands bbolt's exact way of writing.
func TestRandomOperations(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 7))
		l := newLog(t)
		path := l.Path()
		model := raft.NewInmemStore()
		var first, last, term uint64 = 1, 0, 1
		var want disktest.Log
		for step := range 150 {
			switch k := r.IntN(20); {
			case k < 11:
				n := 1 + r.Uint64N(64)
				size := r.IntN(300)
				if r.IntN(10) == 0 {
					size = r.IntN(20000)
				}
				batch := disktest.Entries(last+1, last+n, term, size)
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
				l = openLog(t, path)
			}
			if _, err := Read(path, nil); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
		}
		must(t, l.Close())
		l = openLog(t, path)
		m := raft.NewInmemStore()
		must(t, want.Read(model, m))
		want.Term, want.VoteTerm, want.Candidate = all(t, l).Term, all(t, l).VoteTerm, all(t, l).Candidate
		disktest.Diff(t, want, all(t, l))
		must(t, l.Close())
	}
}

// TestCrashInDeletion opens the file as a crash leaves it: between the three transactions of a
// deletion, and between the two of an opening.
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
			l := newLog(t)
			path := l.Path()
			must(t, l.StoreLogs(disktest.Entries(1, 10, 1, 50)))
			f := &failing{Store: l.store, after: test.fail, err: errors.New("crash")}
			l.store, l.opts.OnFail = f, nil
			if err := l.Run(func() error { return l.DeleteRange(test.lo, test.hi) }); !errors.Is(err, f.err) {
				t.Fatalf("got %v", err)
			}
			must(t, f.Store.Close())
			for range 3 { // crashes at open too: the mark, then raft-boltdb's own transaction
				must(t, markOpening(path, inspect(t, path)))
				inspect(t, path)
				s, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions()})
				must(t, err)
				must(t, s.Close())
				inspect(t, path)
			}
			l = openLog(t, path)
			if s := all(t, l); s.First != test.first || s.Last != test.last {
				t.Errorf("got entries %d to %d, want %d to %d", s.First, s.Last, test.first, test.last)
			}
			must(t, l.StoreLog(disktest.Entry(l.now().last+1, 2, 10)))
			must(t, l.Close())
			openLog(t, path)
		})
	}
}

// failing is a store that fails after a number of writes.
type failing struct {
	Store
	after int
	err   error
}

func (f *failing) broken() bool { f.after--; return f.after < 0 }

// StoreLogs implements Store.
func (f *failing) StoreLogs(logs []*raft.Log) error {
	if f.broken() {
		return f.err
	}
	return f.Store.StoreLogs(logs)
}

// DeleteRange implements Store.
func (f *failing) DeleteRange(lo, hi uint64) error {
	if f.broken() {
		return f.err
	}
	return f.Store.DeleteRange(lo, hi)
}

// inspect checks a log file.
func inspect(t testing.TB, path string) *contents {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	c, err := checkFile(f, nil)
	must(t, err)
	return c
}
