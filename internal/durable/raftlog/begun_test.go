package raftlog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
)

// noBatch is a System that writes no batch into a segment.
type noBatch struct {
	journal.OS
	segment string // the name of its file
}

// WriteAt implements journal.System.
func (s noBatch) WriteAt(f *os.File, b []byte, off int64) error {
	if off == 512 && strings.HasPrefix(filepath.Base(f.Name()), s.segment) {
		return syscall.EIO
	}
	return s.OS.WriteAt(f, b, off)
}

// A write fails when the next segment has just begun, so that the segment says nothing yet. The
// segments before it must not go all the same: only they say what the log is.
func TestSegmentThatHasJustBegun(t *testing.T) {
	d := moved(t)
	var known State
	onClose := func(s State, _ bool) { known = s }
	l := d.mustOpen(t, Options{MoveAfter: 100 << 10, OnClose: onClose})
	last := l.back.Last()
	must(t, l.DeleteRange(last-1, 300)) // raft-boltdb still has two of them
	must(t, vote(l, 2, "c"))
	want := all(t, l)
	first, current := l.front.Segments()
	must(t, l.Close())

	l, err := d.open(Options{
		Known: known, OnClose: onClose, MoveAfter: 100 << 10, Sys: noBatch{segment: segment(current + 1)},
	})
	must(t, err)
	for term := uint64(2); err == nil; term++ {
		err = l.Run(func() error { return vote(l, term, "c") })
	}
	if !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	want.Term, want.VoteTerm = l.durable.vote.Term, l.durable.vote.VoteTerm
	must(t, l.Close())

	l = d.mustOpen(t, Options{Known: known, OnClose: onClose, MoveAfter: 100 << 10})
	must(t, tidy(l))
	if now, _ := l.front.Segments(); now == first {
		t.Fatal("nothing was removed; the test shows nothing")
	}
	must(t, l.Close())
	l = d.mustOpen(t, Options{Known: known})
	disktest.Diff(t, want, all(t, l))
}

// segment returns the name of a segment's file.
func segment(number uint64) string {
	const digits = "0123456789abcdef"
	name := []byte("raft-0000000000000000.log")
	for i := len("raft-") + 15; number > 0; i, number = i-1, number/16 {
		name[i] = digits[number%16]
	}
	return string(name)
}
