package boltlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

const fileName = "raft.db"

// newLog makes and opens a log in a new directory.
func newLog(t testing.TB) *Log {
	t.Helper()
	path := filepath.Join(disktest.MemDir(t), fileName)
	must(t, Create(path, Vote{}, Front{}))
	return openLog(t, path)
}

func openLog(t testing.TB, path string) *Log {
	t.Helper()
	l, err := tryOpen(Options{Path: path})
	must(t, err)
	t.Cleanup(func() { _, _, _ = l.Close() })
	return l
}

// tryOpen opens o.File itself.
func tryOpen(o Options) (*Log, error) {
	f, err := diskfile.OpenKept(o.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	o.File = f
	return Open(o)
}

// closeLog closes a log that bbolt has not panicked in.
func closeLog(t testing.TB, l *Log) State {
	t.Helper()
	s, stuck, err := l.Close()
	must(t, err)
	if stuck {
		t.Fatal("bbolt is stuck")
	}
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// chain seals entries, each behind the one before. prev is the checksum of the entry before them.
func chain(prev uint32, entries ...*raft.Log) []*Sealed {
	list := make([]*Sealed, 0, len(entries))
	for _, e := range entries {
		s := Seal(e, prev)
		list, prev = append(list, s), s.Sum()
	}
	return list
}

// store appends entries behind the newest one of a log.
func store(t testing.TB, l *Log, entries ...*raft.Log) {
	t.Helper()
	must(t, l.Append(chain(l.now().chain, entries...)))
}

// state is all that could be read from a log.
type state struct {
	Base, Last uint64
	Entries    []raft.Log
	Links      [][2]uint32 // of each entry: the checksum of the one before, and its own
	Vote       Vote
	Front      Front
}

func (s *state) add(e *Sealed) error {
	s.Entries = append(s.Entries, *e.Entry())
	s.Links = append(s.Links, [2]uint32{e.Prev(), e.Sum()})
	return nil
}

// stateOf returns what a log holds that has these entries behind base.
func stateOf(base uint64, entries []*Sealed, v Vote, f Front) state {
	s := state{Base: base, Last: base + uint64(len(entries)), Vote: v, Front: f}
	for _, e := range entries {
		_ = s.add(e)
	}
	return s
}

// readState reads everything from an open log.
func readState(l *Log) (state, error) {
	s := state{Base: l.Base(), Last: l.Last()}
	s.Vote, s.Front = l.Vote()
	for i := s.Base + 1; i <= s.Last; i++ {
		e, err := l.Get(i)
		if err != nil {
			return state{}, err
		}
		_ = s.add(e)
	}
	return s, nil
}

// all is readState of a log that can be read.
func all(t testing.TB, l *Log) state {
	t.Helper()
	s, err := readState(l)
	must(t, err)
	return s
}

// readLog opens a log and reads everything.
func readLog(path string) (state, error) {
	l, err := tryOpen(Options{Path: path})
	if err != nil {
		return state{}, err
	}
	s, err := readState(l)
	_, _, cerr := l.Close()
	return s, errors.Join(err, cerr)
}

// readFile reads everything with plain reads.
func readFile(t testing.TB, path string) state {
	t.Helper()
	var s state
	found, err := Read(path, s.add)
	must(t, err)
	s.Base, s.Last, s.Vote, s.Front = found.Base, found.Last, found.Vote, found.Front
	return s
}

// emptyFile makes a file of bbolt with pages of a size. Create then goes on with it.
func emptyFile(t testing.TB, path string, pageSize int) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize, NoFreelistSync: true})
	must(t, err)
	must(t, db.Close())
}

// fill makes a log file with everything in it, not larger than 64 KiB, and returns what it holds.
// bbolt leaves older versions of its pages in the file.
func fill(t testing.TB, path string, pageSize int) state {
	t.Helper()
	emptyFile(t, path, pageSize)
	must(t, Create(path, Vote{HasTerm: true, Term: 2}, Front{ID: 1 << 60, From: 1}))
	l := openLog(t, path)
	must(t, l.Append(chain(77, disktest.Entries(3, 12, 2, 190)...)))
	store(t, l, disktest.Entries(13, 18, 2, 190)...)
	v := Vote{HasTerm: true, Term: 3, HasVote: true, VoteTerm: 3, Candidate: "a candidate"}
	must(t, l.SetVote(v, Front{ID: 1 << 60, From: 5}))
	must(t, l.Cut(16)) // a conflict: the same indices follow in term 3
	store(t, l, disktest.Entries(17, 18, 3, 190)...)
	store(t, l, disktest.Entry(19, 3, 190))
	store(t, l, disktest.Entry(20, 3, 190))
	s := all(t, l)
	closeLog(t, l)
	if s.Base != 2 || s.Last != 20 || len(s.Entries) != 18 || s.Entries[17].Term != 3 || s.Links[0][0] != 77 {
		t.Fatalf("the log was not filled: %+v", s)
	}
	trim(t, path)
	return s
}

// trim cuts a file behind its last page.
func trim(t testing.TB, path string) (b []byte, pageSize int) {
	t.Helper()
	b = disktest.FileBytes(t, path)
	m, err := readMeta(bytes.NewReader(b), int64(len(b)))
	must(t, err)
	b = b[:int(m.pages)*m.pageSize]
	disktest.Put(t, path, b)
	return b, m.pageSize
}

func verifyImage(b []byte) (*contents, error) { return check(bytes.NewReader(b), int64(len(b)), nil) }

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

// around is a store with a function around each call.
type around struct {
	Store
	do func(op string, call func() error) error
}

// StoreLogs implements Store.
func (a around) StoreLogs(logs []*raft.Log) error {
	return a.do("StoreLogs", func() error { return a.Store.StoreLogs(logs) })
}

// GetLog implements Store.
func (a around) GetLog(index uint64, e *raft.Log) error {
	return a.do("GetLog", func() error { return a.Store.GetLog(index, e) })
}

// DeleteRange implements Store.
func (a around) DeleteRange(lo, hi uint64) error {
	return a.do("DeleteRange", func() error { return a.Store.DeleteRange(lo, hi) })
}

// Set implements Store.
func (a around) Set(k, v []byte) error {
	return a.do("Set", func() error { return a.Store.Set(k, v) })
}

// Close implements Store.
func (a around) Close() error { return a.do("Close", a.Store.Close) }

// failAfter makes the writes of a log fail after some. written says that the first one that fails
// is on the disk all the same.
func failAfter(l *Log, writes int, written bool, err error) {
	l.store = around{l.store, func(op string, call func() error) error {
		if op == "GetLog" || op == "Close" {
			return call()
		}
		writes--
		if writes == -1 && written {
			return errors.Join(call(), err)
		}
		if writes < 0 {
			return err
		}
		return call()
	}}
}

// encodeVote1 encodes a vote record as version 1 of it was.
func encodeVote1(v voteRecord) []byte {
	var flags byte
	for i, set := range []bool{v.opening, v.HasTerm, v.HasVote} {
		if set {
			flags |= 1 << i
		}
	}
	b := []byte{1, flags}
	for _, n := range []uint64{v.txid, v.trailer, v.Term, v.VoteTerm} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return diskfile.AppendSum(append(b, v.Candidate...))
}

// deletion is what was going on in an older log file when its process crashed.
type deletion struct {
	base, last uint64 // what the log was about to hold
	done       bool   // the entries are gone, but the next trailer is missing
}

// oldFile makes a log file as it was made before there were journals, with the same transactions:
// it has a vote record of version 1. It holds entries, which are not none. d may be nil.
func oldFile(t testing.TB, path string, pageSize int, entries []*Sealed, v Vote, d *deletion) {
	t.Helper()
	emptyFile(t, path, pageSize)
	db, err := bbolt.Open(path, 0o600, boltOptions())
	must(t, err)
	var txid uint64
	must(t, db.Update(func(tx *bbolt.Tx) error { // the making of the file
		txid = uint64(tx.ID())
		_, err1 := tx.CreateBucket([]byte(logsBucket))
		conf, err2 := tx.CreateBucket([]byte(confBucket))
		return errors.Join(err1, err2, conf.Put([]byte(voteKey), encodeVote1(voteRecord{opening: true, txid: txid})))
	}))
	must(t, db.Close())
	// one of its own
	s, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions()})
	must(t, err)
	first, end := entries[0], entries[len(entries)-1]
	now := span{first.Index() - 1, end.Index(), end.Sum()}
	batch := make([]*raft.Log, 0, len(entries))
	for _, e := range entries {
		batch = append(batch, &e.log)
	}
	commit := func(logs []*raft.Log, tr trailer) {
		must(t, s.StoreLogs(append(logs, &raft.Log{Index: trailerIndex, Type: raft.LogNoop, Data: tr.encode()})))
	}
	commit(batch, trailer{txid: txid + 2, vote: txid, now: now, next: now})
	must(t, s.Set([]byte(voteKey), encodeVote1(voteRecord{txid: txid + 3, trailer: txid + 2, Vote: v})))
	if d != nil {
		next := span{base: d.base, last: d.last}
		if !next.empty() {
			next.chain = entries[d.last-first.Index()].Sum()
		}
		commit(nil, trailer{txid: txid + 4, vote: txid + 3, now: now, next: next})
		if d.done && d.base > now.base {
			must(t, s.DeleteRange(now.base+1, d.base))
		} else if d.done {
			must(t, s.DeleteRange(d.last+1, now.last))
		}
	}
	must(t, s.Close())
}

// Seal returns an entry as it is stored, made part by part.
func Seal(e *raft.Log, prev uint32) *Sealed {
	data := binary.BigEndian.AppendUint32(slices.Clone(e.Data), prev)
	sum := entrySum(e, data)
	data = binary.BigEndian.AppendUint32(data, sum)
	return &Sealed{
		log:  raft.Log{Index: e.Index, Term: e.Term, Type: e.Type, Data: data, Extensions: e.Extensions},
		prev: prev, sum: sum,
	}
}

// Append appends the sealed entry to b.
func (s *Sealed) Append(b []byte) []byte { return append(appendHead(b, &s.log), s.log.Data...) }
