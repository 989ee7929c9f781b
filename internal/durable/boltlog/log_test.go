package boltlog

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

var errDisk = errors.New("the disk is broken")

// model is what a log should hold.
type model struct {
	base    uint64
	entries []*Sealed
	vote    Vote
	front   Front
}

func (m model) last() uint64 { return m.base + uint64(len(m.entries)) }

func (m model) state() state { return stateOf(m.base, m.entries, m.vote, m.front) }

// random returns a change to a log, and what the model is after it.
func (m model) random(r *rand.Rand, term uint64) (change func(*Log) error, after model) {
	after = m
	switch k := r.IntN(16); {
	case k < 10:
		size := r.IntN(300)
		if r.IntN(10) == 0 {
			size = r.IntN(20000)
		}
		var prev uint32
		if n := len(m.entries); n > 0 {
			prev = m.entries[n-1].Sum()
		} else if r.IntN(4) == 0 { // an empty log may go on anywhere
			after.base, prev = r.Uint64N(2*m.base+100), r.Uint32()
		}
		from := after.base + uint64(len(m.entries)) + 1
		batch := chain(prev, disktest.Entries(from, from+r.Uint64N(64), term, size)...)
		after.entries = slices.Concat(m.entries, batch)
		return func(l *Log) error { return l.Append(batch) }, after
	case k < 13:
		// at either end: beyond it
		last := m.last() + 2 - min(m.last(), r.Uint64N(uint64(len(m.entries))+5))
		if r.IntN(20) == 0 {
			last = m.base
		}
		keep := max(last, m.base) - m.base
		after.entries = slices.Clip(m.entries[:min(keep, uint64(len(m.entries)))])
		return func(l *Log) error { return l.Cut(last) }, after
	default:
		after.vote.HasTerm, after.vote.Term = true, term
		if r.IntN(2) == 0 {
			after.vote.HasVote, after.vote.VoteTerm = true, term
			after.vote.Candidate = strings.Repeat("c", r.IntN(maxCandidate+1))
		}
		after.front = Front{ID: r.Uint64(), From: r.Uint64()}
		return func(l *Log) error { return l.SetVote(after.vote, after.front) }, after
	}
}

// TestRandomOperations compares a log with a model over random operations. The file must pass its
// check after each, because the check demands bbolt's exact way of writing. Some operations fail at
// one of their writes, which may be on the disk all the same: the log is then opened again, and is
// as before or as after the operation.
func TestRandomOperations(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	crashes := make(map[bool]int) // by whether the operation took place
	seeds := uint64(6)
	if !*long {
		seeds = 3
		t.Log("3 series; -long makes 6")
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 7))
		l := newLog(t)
		path := l.path
		var m model
		for step := range 200 {
			change, after := m.random(r, uint64(step/10+1))
			switch r.IntN(8) {
			case 0:
				failAfter(l, r.IntN(3), r.IntN(2) == 0, errDisk)
				err := change(l)
				known, stuck, cerr := l.Close()
				if cerr != nil || stuck || err != nil && !errors.Is(err, errDisk) {
					t.Fatalf("seed %d step %d: %v; stuck %v, %v", seed, step, err, stuck, cerr)
				}
				var oerr error
				if l, oerr = tryOpen(Options{Path: path, Known: known}); oerr != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, oerr)
				}
				took := l.Last() == after.last() && l.Base() == after.base && l.vote.Front == after.front
				if err == nil || took {
					m = after
				}
				if err != nil {
					crashes[took]++
				}
				disktest.Diff(t, m.state(), all(t, l))
			case 1:
				known := closeLog(t, l)
				var each state
				var err error
				l, err = tryOpen(Options{Path: path, Known: known, Each: each.add})
				must(t, err)
				want := m.state()
				disktest.Diff(t, want, all(t, l))
				disktest.Diff(t, want.Entries, each.Entries)
				disktest.Diff(t, want.Links, each.Links)
			default:
				must(t, change(l))
				m = after
				if l.Base() != m.base || l.Last() != m.last() {
					t.Fatalf("seed %d step %d: entries %d to %d, want %d to %d", seed, step, l.Base()+1, l.Last(), m.base+1, m.last())
				}
			}
			if _, err := Read(path, nil); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			for _, i := range []uint64{0, m.base, m.last() + 1, trailerIndex} {
				if _, err := l.Get(i); err != raft.ErrLogNotFound {
					t.Fatalf("seed %d step %d: entry %d: %v", seed, step, i, err)
				}
			}
		}
		closeLog(t, l)
		disktest.Diff(t, m.state(), readFile(t, path))
		l = openLog(t, path)
		disktest.Diff(t, m.state(), all(t, l))
		closeLog(t, l)
	}
	if crashes[true] == 0 || crashes[false] == 0 {
		t.Errorf("crashes, by whether the operation took place: %v", crashes)
	}
}

// crashAtOpening opens a file as far as an opening gets, in each of its steps.
func crashAtOpening(t *testing.T, path string) {
	t.Helper()
	for range 3 {
		must(t, markOpening(path, inspect(t, path), voteRecord{}))
		inspect(t, path)
		// a transaction of its own
		s, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions()})
		must(t, err)
		must(t, s.Close())
		if !inspect(t, path).open {
			continue
		}
		for _, written := range []bool{false, false, true} { // the end of the deletion
			_, err := tryOpen(Options{Path: path, Wrap: func(s Store) Store {
				l := &Log{store: s}
				failAfter(l, 0, written, errDisk)
				return l.store
			}})
			if !errors.Is(err, errDisk) {
				t.Fatalf("got %v", err)
			}
			if inspect(t, path).open == written {
				t.Fatalf("written %v: the file says otherwise", written)
			}
		}
	}
}

// TestCrashInCut opens the file as a crash leaves it: between the three transactions of Cut, and
// between those of an opening.
func TestCrashInCut(t *testing.T) {
	for _, test := range []struct {
		name    string
		cut     uint64 // the log holds the entries 3 to 10
		writes  int    // transactions before the crash
		written bool   // and the next one is on the disk, but nobody knows
		last    uint64
	}{
		{name: "nothing", cut: 6, writes: 0, last: 10},
		{name: "announced", cut: 6, writes: 1, last: 10},
		{name: "announced, not acknowledged", cut: 6, writes: 0, written: true, last: 10},
		{name: "deleted", cut: 6, writes: 2, last: 6},
		{name: "deleted, not acknowledged", cut: 6, writes: 1, written: true, last: 6},
		{name: "done, not acknowledged", cut: 6, writes: 2, written: true, last: 6},
		{name: "all announced", cut: 2, writes: 1, last: 10},
		{name: "all deleted", cut: 2, writes: 2, last: 2},
		{name: "more than all deleted", cut: 1, writes: 2, last: 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLog(t)
			path := l.path
			entries := chain(5, disktest.Entries(3, 10, 1, 50)...)
			must(t, l.Append(entries))
			failAfter(l, test.writes, test.written, errDisk)
			if err := l.Cut(test.cut); !errors.Is(err, errDisk) {
				t.Fatalf("got %v", err)
			}
			known := closeLog(t, l)
			want := stateOf(2, entries[:test.last-2], Vote{}, Front{})
			disktest.Diff(t, want, readFile(t, path))
			crashAtOpening(t, path)
			l, err := tryOpen(Options{Path: path, Known: known})
			must(t, err)
			disktest.Diff(t, want, all(t, l))
			store(t, l, disktest.Entry(l.Last()+1, 2, 10))
			closeLog(t, l)
			if last := openLog(t, path).Last(); last != test.last+1 {
				t.Errorf("the log ends at %d, want %d", last, test.last+1)
			}
		})
	}
}

// TestCrashInCreate: a file that nobody has opened yet is right at each step of an opening, and
// keeps what it was made with.
func TestCrashInCreate(t *testing.T) {
	path := filepath.Join(disktest.MemDir(t), fileName)
	want := state{Vote: Vote{HasTerm: true, Term: 7, Candidate: "n2"}, Front: Front{ID: 3, From: 4}}
	must(t, Create(path, want.Vote, want.Front))
	disktest.Diff(t, want, readFile(t, path))
	crashAtOpening(t, path)
	disktest.Diff(t, want, all(t, openLog(t, path)))
}

// use calls everything that a log can do with its file.
func use(l *Log) map[string]error {
	_, err := l.Get(2)
	return map[string]error{
		"Get": err, "Cut": l.Cut(2), "Append": l.Append(chain(l.now().chain, disktest.Entry(6, 1, 10))),
		"SetVote": l.SetVote(Vote{HasTerm: true, Term: 9}, Front{}),
	}
}

// TestErrorIsSticky: after the first error every later call fails with it, though the store is well
// again. The file is closed, and holds what was acknowledged.
func TestErrorIsSticky(t *testing.T) {
	for _, test := range []struct {
		name   string
		op     string
		writes int // before the failing one
		call   func(*Log) error
	}{
		{"Append", "StoreLogs", 0, func(l *Log) error { return l.Append(chain(l.now().chain, disktest.Entry(6, 1, 10))) }},
		{"Cut, the announcement", "StoreLogs", 0, func(l *Log) error { return l.Cut(3) }},
		{"Cut, the deletion", "DeleteRange", 0, func(l *Log) error { return l.Cut(3) }},
		{"Cut, the end", "StoreLogs", 1, func(l *Log) error { return l.Cut(3) }},
		{"Cut, a read", "GetLog", 0, func(l *Log) error { return l.Cut(3) }},
		{"SetVote", "Set", 0, func(l *Log) error { return l.SetVote(Vote{HasTerm: true, Term: 9}, Front{}) }},
		{"Get", "GetLog", 0, func(l *Log) error { _, err := l.Get(2); return err }},
	} {
		for _, panics := range []bool{false, true} {
			name := test.name
			if panics {
				name += ", a panic"
			}
			t.Run(name, func(t *testing.T) {
				l := newLog(t)
				store(t, l, disktest.Entries(1, 5, 1, 10)...)
				want := all(t, l)
				bolt, n, failed, closed := l.store, test.writes, false, 0
				l.store = around{bolt, func(op string, call func() error) error {
					if op == "Close" {
						closed++
					}
					if op != test.op || failed {
						return call()
					}
					if n--; n >= 0 {
						return call()
					}
					failed = true
					if panics {
						panic(errDisk)
					}
					return errDisk
				}}
				err := test.call(l)
				if panics && (err == nil || err.Error() != "bbolt: "+errDisk.Error()) || !panics && !errors.Is(err, errDisk) {
					t.Fatalf("got %v", err)
				}
				for name, later := range use(l) {
					if later != err {
						t.Errorf("%s: %v, and the first error was %v", name, later, err)
					}
				}
				known, stuck, cerr := l.Close()
				if stuck != panics || cerr != nil || (closed == 0) != panics {
					t.Errorf("stuck %v, %v; the store was closed %d times", stuck, cerr, closed)
				}
				again, stuck, cerr := l.Close()
				if again != known || stuck != panics || cerr != nil || closed > 1 {
					t.Errorf("a second time: %+v after %+v, stuck %v, %v; the store was closed %d times", again, known, stuck, cerr, closed)
				}
				if panics {
					must(t, bolt.Close())
				}
				if strings.HasPrefix(test.name, "Cut, the end") {
					want.Last, want.Entries, want.Links = 3, want.Entries[:3], want.Links[:3]
				}
				o, err := tryOpen(Options{Path: l.path, Known: known})
				must(t, err)
				disktest.Diff(t, want, all(t, o))
				closeLog(t, o)
			})
		}
	}
}

// TestClosed: what a closed log is asked for fails, and a reader learns nothing of the file.
func TestClosed(t *testing.T) {
	l := newLog(t)
	store(t, l, disktest.Entries(1, 5, 1, 10)...)
	closeLog(t, l)
	for name, err := range use(l) {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l.Base() != 0 || l.Last() != 5 {
		t.Errorf("the log holds entries %d to %d", l.Base()+1, l.Last())
	}
}

// TestCloseFails: the error of closing the store is returned once.
func TestCloseFails(t *testing.T) {
	l := newLog(t)
	bolt := l.store
	l.store = around{bolt, func(string, func() error) error { return errDisk }}
	if _, stuck, err := l.Close(); stuck || !errors.Is(err, errDisk) {
		t.Errorf("stuck %v, %v", stuck, err)
	}
	closeLog(t, l)
	must(t, bolt.Close())
}

// TestAppendOutOfOrder: entries that do not follow are not written, and fail the log.
func TestAppendOutOfOrder(t *testing.T) {
	entries := chain(0, disktest.Entries(1, 8, 1, 10)...)
	other := chain(1, disktest.Entries(1, 8, 1, 10)...)
	for _, test := range []struct {
		name  string
		batch []*Sealed
		want  string
	}{
		{"a gap", entries[6:], "entry 7 does not follow entry 5"},
		{"a gap in the right chain", chain(entries[4].Sum(), disktest.Entry(7, 1, 10)), "entry 7 does not follow entry 5"},
		{"an entry that is there", entries[4:], "entry 5 does not follow entry 5"},
		{"the first entry", entries[:1], "entry 1 does not follow entry 5"},
		{"of another chain", other[5:], "entry 6 does not follow entry 5"},
		{"a gap in the batch", []*Sealed{entries[5], entries[7]}, "entry 8 does not follow entry 6"},
		{"twice in the batch", []*Sealed{entries[5], entries[5]}, "entry 6 does not follow entry 6"},
		{"of another chain in the batch", []*Sealed{entries[5], other[6]}, "entry 7 does not follow entry 6"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLog(t)
			must(t, l.Append(entries[:5]))
			err := l.Append(test.batch)
			if err == nil || err.Error() != test.want {
				t.Fatalf("got %v", err)
			}
			if again := l.Append(entries[5:]); again != err {
				t.Errorf("the log goes on: %v", again)
			}
			closeLog(t, l)
			disktest.Diff(t, stateOf(0, entries[:5], Vote{}, Front{}), readFile(t, l.path))
		})
	}
}

// TestWrongEntryIsRead: an entry is checked each time it is read.
func TestWrongEntryIsRead(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(*raft.Log)
	}{
		{"data", func(e *raft.Log) { e.Data[0] ^= 1 }},
		{"no data", func(e *raft.Log) { e.Data = nil }},
		{"term", func(e *raft.Log) { e.Term++ }},
		{"type", func(e *raft.Log) { e.Type++ }},
		{"extensions", func(e *raft.Log) { e.Extensions = []byte{0} }},
		{"another entry", func(e *raft.Log) { *e = Seal(disktest.Entry(3, 1, 10), 0).log }},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLog(t)
			store(t, l, disktest.Entries(1, 5, 1, 10)...)
			l.store = damaging{l.store, test.damage}
			_, err := l.Get(2)
			disktest.IsDamaged(t, err, l.path)
			if !strings.Contains(err.Error(), "checksum of entry 2") {
				t.Errorf("got %v", err)
			}
			if err2 := l.Append(chain(l.now().chain, disktest.Entry(6, 1, 10))); err2 != err {
				t.Errorf("the log goes on: %v", err2)
			}
		})
	}
}

// damaging is a store that reads entries wrongly.
type damaging struct {
	Store
	damage func(*raft.Log)
}

// GetLog implements Store.
func (d damaging) GetLog(index uint64, e *raft.Log) error {
	err := d.Store.GetLog(index, e)
	d.damage(e)
	return err
}

// TestKnown: an older version of a file is right in itself, and is refused by a process that has
// written more.
func TestKnown(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Log) error
	}{
		{"Append", func(l *Log) error { return l.Append(chain(l.now().chain, disktest.Entry(6, 1, 10))) }},
		{"Cut", func(l *Log) error { return l.Cut(3) }},
		{"SetVote", func(l *Log) error { return l.SetVote(Vote{HasTerm: true, Term: 9}, Front{}) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLog(t)
			store(t, l, disktest.Entries(1, 5, 1, 10)...)
			older := disktest.FileBytes(t, l.path)
			must(t, test.change(l))
			known := closeLog(t, l)
			o, err := tryOpen(Options{Path: l.path, Known: known})
			must(t, err)
			closeLog(t, o)
			disktest.Put(t, l.path, older)
			_, err = tryOpen(Options{Path: l.path, Known: known})
			disktest.IsDamaged(t, err, l.path)
			closeLog(t, openLog(t, l.path)) // as another process would
		})
	}
	t.Run("a later transaction with an older term", func(t *testing.T) {
		l := newLog(t)
		must(t, l.SetVote(Vote{HasTerm: true, Term: 8}, Front{}))
		closeLog(t, l)
		for term, refused := range map[uint64]bool{8: false, 9: true} {
			known := State{vote: voteRecord{Vote: Vote{Term: term}}}
			_, found := errors.AsType[*diskfile.Finding](known.check(inspect(t, l.path)))
			if found != refused {
				t.Errorf("term %d: refused %v", term, found)
			}
		}
	})
}

// TestEachFails: the error of Options.Each ends an opening.
func TestEachFails(t *testing.T) {
	l := newLog(t)
	store(t, l, disktest.Entries(1, 5, 1, 10)...)
	closeLog(t, l)
	fail := func(e *Sealed) error {
		if e.Index() == 3 {
			return errDisk
		}
		return nil
	}
	if _, err := tryOpen(Options{Path: l.path, Each: fail}); !errors.Is(err, errDisk) {
		t.Errorf("Open: %v", err)
	}
	if _, err := Read(l.path, fail); !errors.Is(err, errDisk) {
		t.Errorf("Read: %v", err)
	}
}

// TestOpenElsewhere: a file that is open already is refused, and so is one that the path does not
// lead to.
func TestOpenElsewhere(t *testing.T) {
	l := newLog(t)
	t.Run("open", func(t *testing.T) {
		if testing.Short() {
			t.Skip("a slow test: it runs without -short")
		}
		if _, err := tryOpen(Options{Path: l.path}); !errors.Is(err, ErrLocked) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("replaced", func(t *testing.T) {
		other := newLog(t)
		closeLog(t, other)
		file, err := diskfile.OpenKept(l.path)
		must(t, err)
		defer file.Close()
		_, err = Open(Options{Path: other.path, File: file})
		if moved, ok := errors.AsType[*diskfile.MovedError](err); !ok || moved.Path != other.path || moved.Missing {
			t.Errorf("got %v", err)
		}
		closeLog(t, openLog(t, other.path)) // it was closed
	})
}

// TestReadWhileWriting: any goroutine may read while one changes the log.
func TestReadWhileWriting(t *testing.T) {
	l := newLog(t)
	const rounds = 30
	store(t, l, disktest.Entries(1, 10, 1, 100)...)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := uint64(1); ; i = i%14 + 1 {
				select {
				case <-done:
					return
				default:
				}
				e, err := l.Get(i)
				if err == nil && e.Index() != i || err != nil && (err != raft.ErrLogNotFound || i <= 10) {
					t.Errorf("entry %d: %v", i, err)
					return
				}
				if v, f := l.Vote(); v.Term != f.From || l.Last() < 10 || l.Base() != 0 {
					t.Errorf("%+v, %+v, entries %d to %d", v, f, l.Base()+1, l.Last())
					return
				}
			}
		})
	}
	for n := range uint64(rounds) {
		store(t, l, disktest.Entries(11, 14, n, 100)...)
		must(t, l.SetVote(Vote{HasTerm: true, Term: n}, Front{From: n}))
		must(t, l.Cut(10))
	}
	close(done)
	wg.Wait()
	closeLog(t, l)
}

// What could not be read again is refused, and the log goes on.
func TestUnreadableIsRefused(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(l *Log) error
		says string
	}{
		{"candidate", func(l *Log) error {
			return l.SetVote(Vote{HasVote: true, Candidate: strings.Repeat("c", maxCandidate+1)}, Front{})
		}, "too long"},
		{"entry 0", func(l *Log) error { return l.Append(chain(0, &raft.Log{Term: 1})) }, "cannot have the index 0"},
		{"the trailer's entry", func(l *Log) error {
			return l.Append(chain(0, &raft.Log{Index: trailerIndex, Term: 1}))
		}, "cannot have the index"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLog(t)
			if err := test.do(l); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v", err)
			}
			closeLog(t, l)
			if _, err := Read(l.path, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// The first error is every later call's, those included that would change or find nothing. A log
// that has failed is closed all the same.
func TestFirstErrorStays(t *testing.T) {
	l := newLog(t)
	failAfter(l, 0, false, fmt.Errorf("write: %w", fs.ErrClosed))
	first := l.SetVote(Vote{HasTerm: true, Term: 9}, Front{})
	_, gerr := l.Get(6)
	for _, err := range []error{first, l.Append(nil), l.Cut(5), gerr} {
		if !errors.Is(err, fs.ErrClosed) || err.Error() != first.Error() {
			t.Errorf("got %v, want %v", err, first)
		}
	}
	closeLog(t, l)
	again, err := tryOpen(Options{Path: l.path})
	must(t, err)
	closeLog(t, again)
}
