package raftlog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
)

// Entries are moved that replace all of a log that raft-boltdb still has.
func TestMoveOverReplaced(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(l *Log) error
	}{
		{"another leader's entries", func(l *Log) error {
			return errors.Join(l.DeleteRange(11, 300), l.StoreLog(disktest.Entry(11, 2, 1000)))
		}},
		{"and some of them are deleted", func(l *Log) error {
			return errors.Join(
				l.DeleteRange(11, 300), l.StoreLogs(disktest.Entries(11, 20, 2, 1000)), l.DeleteRange(11, 15),
			)
		}},
		{"a snapshot's last entry", func(l *Log) error { return l.StoreLog(disktest.Entry(11, 2, 1000)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := moved(t)
			l := d.mustOpen(t, Options{MoveAfter: 100 << 10})
			must(t, l.DeleteRange(1, 10))
			must(t, test.do(l))
			for i := l.span().last + 1; i <= 700; i++ {
				must(t, l.StoreLog(disktest.Entry(i, 2, 1000)))
			}
			want := all(t, l)
			must(t, tidy(l))
			if l.back.Base() != l.Base() {
				t.Errorf("raft-boltdb has the entries from %d on", l.back.Base()+1)
			}
			disktest.Diff(t, want, all(t, l))
			must(t, l.Close())
			disktest.Diff(t, want, all(t, d.mustOpen(t, Options{})))
		})
	}
}

// full is a System without room for another segment.
type full struct {
	journal.OS
	refused int
}

// WriteAt implements journal.System.
func (s *full) WriteAt(f *os.File, b []byte, off int64) error {
	if strings.HasPrefix(filepath.Base(f.Name()), segment(2)) {
		s.refused++
		return syscall.ENOSPC
	}
	return s.OS.WriteAt(f, b, off)
}

// On a full disk the log goes on as long as its segment has room. Upkeep does not try to make
// another one with each write.
func TestNoRoomAheadOfTime(t *testing.T) {
	d, sys := newDir(t), new(full)
	l := d.mustOpen(t, Options{Sys: sys})
	for i := uint64(1); i <= 100; i++ {
		must(t, l.StoreLog(disktest.Entry(i, 1, 10)))
		must(t, tidy(l))
	}
	if sys.refused != 1 {
		t.Errorf("%d attempts", sys.refused)
	}
	sys.refused, l.upkeep.full = 0, time.Now().Add(-prepareRest)
	must(t, tidy(l))
	if sys.refused != 1 {
		t.Errorf("%d attempts after a rest", sys.refused)
	}
}
