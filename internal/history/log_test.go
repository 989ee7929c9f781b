package history

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

// entry is a command at an index of a log.
func entry(index, term uint64, text string) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: []byte(text)}
}

// three are the entries of the logs below: 1 and 2 of the term 2, 3 of the term 3.
func three() []*raft.Log {
	return []*raft.Log{entry(1, 2, "a"), entry(2, 2, "b"), entry(3, 3, "c")}
}

// sumOf returns the sum of entries from the first on.
func sumOf(entries ...*raft.Log) (s Sum) {
	for _, e := range entries {
		s = s.Next(e)
	}
	return s
}

// newLog returns a log with these entries, of which some were applied, and the conflicts that it
// reports.
func newLog(t *testing.T, applied uint64, entries ...*raft.Log) (*Log, *[]*Conflict) {
	t.Helper()
	refusals := new([]*Conflict)
	l := NewLog(raft.NewInmemStore(), func() uint64 { return applied }, func(c *Conflict) { *refusals = append(*refusals, c) })
	if err := l.Seed(0, 0); err != nil {
		t.Fatal(err)
	}
	if err := l.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
	return l, refusals
}

func TestCompare(t *testing.T) {
	own := three()
	for _, test := range []struct {
		name    string
		applied uint64
		claim   Claim
		at      uint64 // the entry where they contradict each other; 0: none
	}{
		{"the same entry", 3, Claim{Index: 3, Term: 3, Sum: sumOf(own...), Known: true}, 0},
		{"another past of it", 0, Claim{Index: 3, Term: 3, Sum: sumOf(own...) + 1, Known: true}, 3},
		{"a past that the leader does not know", 3, Claim{Index: 3, Term: 3, Sum: 1}, 0},
		{"another term of what was applied", 3, Claim{Index: 3, Term: 4, Known: true}, 3},
		{"another term of what was not", 2, Claim{Index: 3, Term: 4, Known: true}, 0},
		{"the same entries", 3, Claim{Index: 1, Term: 2, Sum: sumOf(own[0]), Known: true, Entries: own[1:]}, 0},
		{"the same entries from the first on", 3, Claim{Entries: own}, 0},
		{"an entry with other content", 0, Claim{Index: 1, Term: 2, Sum: sumOf(own[0]), Known: true, Entries: []*raft.Log{entry(2, 2, "x")}}, 2},
		{"an entry with other content, from the first on", 0, Claim{Entries: []*raft.Log{entry(1, 2, "x")}}, 1},
		{"an entry of another term that was applied", 2, Claim{Index: 1, Term: 2, Sum: sumOf(own[0]), Known: true, Entries: []*raft.Log{entry(2, 3, "x")}}, 2},
		{"an entry of another term that was not", 1, Claim{Index: 1, Term: 2, Sum: sumOf(own[0]), Known: true, Entries: []*raft.Log{entry(2, 3, "x"), entry(3, 3, "y")}}, 0},
		{"what this one does not have yet", 3, Claim{Index: 3, Term: 3, Sum: sumOf(own...), Known: true, Entries: []*raft.Log{entry(4, 4, "d")}}, 0},
		{"far behind what this one has", 3, Claim{Index: 9, Term: 4, Sum: 1, Known: true}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, _ := newLog(t, test.applied, own...)
			c := l.Compare(test.claim)
			if test.at == 0 && c != nil || test.at != 0 && (c == nil || c.Index != test.at) {
				t.Errorf("got %v, want one at entry %d", c, test.at)
			}
		})
	}
}

// Applied entries leave the log only at its beginning.
func TestAppliedEntriesStay(t *testing.T) {
	for _, test := range []struct {
		name           string
		applied        uint64
		lo, hi         uint64
		refused, exist bool
	}{
		{"behind what was applied", 2, 3, 3, false, true},
		{"the newest that was applied", 3, 3, 3, true, true},
		{"all", 1, 1, 3, true, true},
		{"the beginning", 3, 1, 2, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, refusals := newLog(t, test.applied, three()...)
			err := l.DeleteRange(test.lo, test.hi)
			if refused := errors.Is(err, errApplied); refused != test.refused || refused != (len(*refusals) == 1) ||
				err != nil && !refused {
				t.Errorf("got %v, and refusals %v; want a refusal: %v", err, *refusals, test.refused)
			}
			if err := l.GetLog(1, new(raft.Log)); err != nil && !errors.Is(err, raft.ErrLogNotFound) ||
				(err == nil) != test.exist {
				t.Errorf("the first entry: %v", err)
			}
		})
	}
}

// The sums are those of the entries in the log, not of earlier ones at the same indices.
func TestSumsFollowTheLog(t *testing.T) {
	own := three()
	l, _ := newLog(t, 1, own...)
	want := func(index uint64, entries ...*raft.Log) {
		t.Helper()
		if got, ok := l.At(index, 0); !ok || got != sumOf(entries...) {
			t.Errorf("entry %d: %x, known %v; want %x", index, got, ok, sumOf(entries...))
		}
	}
	want(3, own...)
	if _, ok := l.At(3, 2); ok {
		t.Error("the sum of an entry of another term is known")
	}
	other := []*raft.Log{entry(2, 4, "x"), entry(3, 4, "y"), entry(4, 4, "z")}
	if err := l.DeleteRange(2, 3); err != nil {
		t.Fatal(err)
	}
	if _, ok := l.At(2, 0); ok {
		t.Error("the sum of a deleted entry is known")
	}
	if err := l.StoreLogs(other); err != nil {
		t.Fatal(err)
	}
	want(4, own[0], other[0], other[1], other[2])
	sum := sumOf(own[0], other[0])
	if err := l.DeleteRange(1, 2); err != nil {
		t.Fatal(err)
	}
	want(2, own[0], other[0])
	want(4, own[0], other[0], other[1], other[2])
	// The same in the next process, which begins with a snapshot up to 2.
	next := NewLog(l.LogStore, func() uint64 { return 2 }, nil)
	if err := next.Seed(2, sum); err != nil {
		t.Fatal(err)
	}
	l = next
	want(4, own[0], other[0], other[1], other[2])
}
