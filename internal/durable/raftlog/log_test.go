package raftlog

import (
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// model is what a log must hold.
type model struct {
	disktest.Log
	term uint64 // of the next entries
}

// do makes one random change to a log. It returns what the log may hold if the change fails: what
// it held, or what it was to hold. Then it makes the change.
func (m *model) next(r *rand.Rand) (change func(l *Log) error) {
	last := m.Last
	if last == 0 {
		last = m.base()
	}
	switch k := r.IntN(20); {
	case k < 11 || m.Last == 0 && k < 16:
		n, size := 1+r.Uint64N(20), r.IntN(300)
		if r.IntN(10) == 0 {
			size = r.IntN(20000)
		}
		first := last + 1
		if m.Last == 0 {
			first += r.Uint64N(3) // behind a snapshot
		}
		batch := disktest.Entries(first, first+n-1, m.term, size)
		m.store(batch)
		return func(l *Log) error { return l.StoreLogs(batch) }
	case k < 13: // conflict
		from := m.First + r.Uint64N(m.Last-m.First+1)
		m.cut(from - 1)
		m.term++
		return func(l *Log) error { return l.DeleteRange(from, last) }
	case k < 15 && m.Last > m.First: // compaction
		to := m.First + r.Uint64N(m.Last-m.First)
		first := m.First
		m.Entries, m.First = m.Entries[to-first+1:], to+1
		return func(l *Log) error { return l.DeleteRange(first, to) }
	case k < 16 && m.Last > m.First: // the remedy for a conflicting snapshot
		at := m.First + r.Uint64N(m.Last-m.First+1)
		e := raft.Log{Index: at, Term: m.term, Type: raft.LogNoop}
		m.Entries = append([]raft.Log(nil), m.Entries...)
		m.Entries[at-m.First] = e
		return func(l *Log) error { return l.StoreLog(&e) }
	default:
		m.term++
		m.Term, m.VoteTerm, m.Candidate = m.term, m.term, string(make([]byte, r.IntN(50)))
		return func(l *Log) error { return vote(l, m.Term, m.Candidate) }
	}
}

// base returns the index before the first entry that may come to an empty log.
func (m *model) base() uint64 { return m.First - min(m.First, 1) }

func (m *model) store(batch []*raft.Log) {
	if m.Last == 0 {
		m.First, m.Entries = batch[0].Index, nil
	}
	m.Entries = append([]raft.Log(nil), m.Entries...)
	for _, e := range batch {
		m.Entries = append(m.Entries, *e)
		m.Last = e.Index
	}
}

func (m *model) cut(last uint64) {
	m.Entries, m.Last = m.Entries[:last-m.First+1], last
	if len(m.Entries) == 0 {
		m.Last = 0
	}
}

// holds returns what raft could read.
func (m *model) holds() disktest.Log {
	s := m.Log
	if s.Last == 0 {
		s.First, s.Entries = 0, nil
	}
	return s
}

// TestRandomOperations compares a log with a model over random operations, while upkeep moves and
// removes entries beside them, and over restarts.
func TestRandomOperations(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	seeds := uint64(2)
	if *long {
		seeds = 40
	} else {
		t.Log("2 series; -long makes 40")
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 7))
		d, m := newDir(t), &model{term: 1}
		var known State
		o := Options{MoveAfter: 300 << 10, OnClose: func(s State, _ bool) { known = s }}
		l := d.mustOpen(t, o)
		l.Start()
		for range 400 {
			must(t, m.next(r)(l))
			if r.IntN(20) == 0 {
				disktest.Diff(t, m.holds(), all(t, l))
			}
			if r.IntN(40) > 0 {
				continue
			}
			must(t, l.Close())
			want := m.holds()
			want.VoteTerm, want.Candidate = 0, ""
			disktest.Diff(t, want, d.readFiles(t))
			o.Known = known
			l = d.mustOpen(t, o)
			l.Start()
			disktest.Diff(t, m.holds(), all(t, l))
		}
		must(t, l.Close())
	}
}
