package raftlog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/boltlog"
	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// seal returns an entry as raft-boltdb has it.
func seal(e *raft.Log, prev uint32) *boltlog.Sealed {
	b, _ := boltlog.AppendSealed(nil, e, prev)
	s, _ := boltlog.DecodeSealed(b)
	return s
}

// sealed returns entries as raft-boltdb has them.
func sealed(list []*raft.Log) (out []*boltlog.Sealed) {
	var sum uint32
	for _, e := range list {
		s := seal(e, sum)
		out, sum = append(out, s), s.Sum()
	}
	return out
}

// changeBack changes raft-boltdb's file behind the log's back.
func (d dir) changeBack(t *testing.T, change func(l *boltlog.Log) error) {
	t.Helper()
	f, err := os.OpenFile(d.log(), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	l, err := boltlog.Open(boltlog.Options{Path: d.log(), File: f})
	must(t, err)
	must(t, change(l))
	_, _, err = l.Close()
	must(t, err)
}

// moved returns a directory with entries 1 to 300, of which raft-boltdb has the older ones.
func moved(t *testing.T) dir {
	t.Helper()
	d := newDir(t)
	l := d.mustOpen(t, Options{MoveAfter: 100 << 10})
	for i := uint64(1); i <= 300; i++ {
		must(t, l.StoreLog(disktest.Entry(i, 1, 1000)))
	}
	must(t, tidy(l))
	if last := l.back.Last(); last == 0 || last == 300 {
		t.Fatalf("raft-boltdb has the entries up to %d", last)
	}
	must(t, l.Close())
	return d
}

// What raft-boltdb and the journal hold must be one log.
func TestJoin(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(l *boltlog.Log) error
		says   string // empty: the log is right
	}{
		{"nothing", func(*boltlog.Log) error { return nil }, ""},
		{"the newest is missing", func(l *boltlog.Log) error { return l.Cut(l.Last() - 1) }, "is missing"},
		{"all are missing", func(l *boltlog.Log) error { return l.Cut(0) }, "entry 1 is missing"},
		{"the newest is another", func(l *boltlog.Log) error {
			last := l.Last()
			before, err := l.Get(last - 1)
			if err != nil {
				return err
			}
			if err := l.Cut(last - 1); err != nil {
				return err
			}
			return l.Append([]*boltlog.Sealed{seal(disktest.Entry(last, 1, 5), before.Sum())})
		}, "does not belong behind"},
		{"it has more than it should", func(l *boltlog.Log) error {
			last, err := l.Get(l.Last())
			if err != nil {
				return err
			}
			return l.Append([]*boltlog.Sealed{seal(disktest.Entry(l.Last()+1, 1, 5), last.Sum())})
		}, ""}, // entries that were replaced in the journal
		{"its journal is another", func(l *boltlog.Log) error {
			v, f := l.Vote()
			f.ID++
			return l.SetVote(v, f)
		}, "its first sector is wrong"},
		{"its journal begins later", func(l *boltlog.Log) error {
			v, f := l.Vote()
			f.From += 100
			return l.SetVote(v, f)
		}, "of the raft log is missing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := moved(t)
			d.changeBack(t, test.change)
			before := disktest.Tree(t, d.path)
			_, rerr := Read(d.log(), nil)
			disktest.Diff(t, before, disktest.Tree(t, d.path))
			l, err := d.open(Options{})
			if test.says == "" {
				must(t, err)
				must(t, rerr)
				disktest.Diff(t, uint64(300), all(t, l).Last)
				must(t, l.Close())
				return
			}
			for _, err := range []error{err, rerr} {
				if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "is damaged") {
					t.Errorf("got %v, want %q", err, test.says)
				}
			}
		})
	}
}

// A directory that was written before there were journals is taken over.
func TestOlderDirectory(t *testing.T) {
	d := dir{disktest.MemDir(t)}
	v := boltlog.Vote{HasTerm: true, Term: 4, HasVote: true, VoteTerm: 3, Candidate: "c"}
	must(t, boltlog.Create(d.log(), v, boltlog.Front{}))
	d.changeBack(t, func(l *boltlog.Log) error { return l.Append(sealed(disktest.Entries(1, 20, 3, 50))) })
	want := disktest.Log{First: 1, Last: 20, Term: 4, VoteTerm: 3, Candidate: "c"}
	for _, e := range disktest.Entries(1, 20, 3, 50) {
		want.Entries = append(want.Entries, *e)
	}
	l := d.mustOpen(t, Options{})
	disktest.Diff(t, want, all(t, l))
	must(t, l.DeleteRange(15, 20)) // raft-boltdb has them
	must(t, l.StoreLogs(disktest.Entries(15, 22, 4, 50)))
	must(t, l.Close())
	got := all(t, d.mustOpen(t, Options{}))
	if got.Last != 22 || got.Entries[13].Term != 3 || got.Entries[14].Term != 4 {
		t.Errorf("the log holds %d to %d", got.First, got.Last)
	}
}

// raft-boltdb's file does not stay as large as it once was.
func TestEmptyFile(t *testing.T) {
	d := moved(t)
	l := d.mustOpen(t, Options{MoveAfter: 100 << 10})
	large := fileSize(d.log())
	must(t, l.DeleteRange(1, l.back.Last()+1))
	must(t, tidy(l))
	if small := fileSize(d.log()); small >= large || small > 256<<10 {
		t.Errorf("the file has %d bytes, and had %d", small, large)
	}
	must(t, l.Close())
	disktest.Diff(t, uint64(300), all(t, d.mustOpen(t, Options{})).Last)
}

// Entries are not moved behind others that were deleted meanwhile: an empty file comes first.
func TestMoveBehindDeleted(t *testing.T) {
	d := moved(t)
	l := d.mustOpen(t, Options{MoveAfter: 100 << 10})
	for i := uint64(301); i <= 1300; i++ { // into a segment that is larger than those before
		must(t, l.StoreLog(disktest.Entry(i, 1, 1000)))
	}
	must(t, l.DeleteRange(1, l.back.Last()+5))
	must(t, l.Run(func() error { l.moveSegment(); return nil }))
	must(t, tidy(l))
	if l.back.Base() < 6 || l.back.Last() == l.back.Base() {
		t.Errorf("raft-boltdb has the entries %d to %d", l.back.Base()+1, l.back.Last())
	}
	disktest.Diff(t, uint64(1300), all(t, l).Last)
}

// Segments are removed only when the deletion of their entries is on the disk: a crash right after
// it leaves a log that is whole.
func TestRemovalIsWrittenFirst(t *testing.T) {
	d := newDir(t)
	l := d.mustOpen(t, Options{})
	for i := uint64(1); i <= 300; i++ {
		must(t, l.StoreLog(disktest.Entry(i, 1, 1000)))
	}
	must(t, l.DeleteRange(1, 295))
	must(t, l.Run(func() error { l.free(); return nil }))
	if first, _ := l.front.Segments(); first == 1 {
		t.Fatal("nothing was removed; the test shows nothing")
	}
	crashed := dir{filepath.Join(disktest.MemDir(t), "copy")} // nothing more is written
	must(t, os.CopyFS(crashed.path, os.DirFS(d.path)))
	got := all(t, crashed.mustOpen(t, Options{}))
	if got.First != 296 || got.Last != 300 {
		t.Errorf("the log holds %d to %d", got.First, got.Last)
	}
}
