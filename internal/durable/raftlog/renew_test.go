package raftlog

import (
	"errors"
	"syscall"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// halfReplaced is a directory that fails when a file has got another's name.
type halfReplaced struct{ dir }

// Replace implements Files.
func (d halfReplaced) Replace(tmp, path string) error {
	return errors.Join(d.dir.Replace(tmp, path), syscall.EIO)
}

// An empty file is in the place of raft-boltdb's, and whether its name is on the disk is not known.
// The log can be opened again.
func TestReplacedAndFailed(t *testing.T) {
	d := moved(t)
	var known State
	l, err := d.open(Options{MoveAfter: 100 << 10, OnClose: func(s State, _ bool) { known = s }})
	must(t, err)
	l.opts.Files = halfReplaced{d}
	must(t, l.DeleteRange(1, l.back.Last()+1))
	want := all(t, l)
	if err := tidy(l); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	must(t, l.Close())
	disktest.Diff(t, want, all(t, d.mustOpen(t, Options{Known: known})))
}

// closedFirst is a directory on a system that replaces no open file.
type closedFirst struct {
	dir
	t *testing.T
}

// Replace implements Files.
func (d closedFirst) Replace(tmp, path string) error {
	for _, p := range []string{tmp, path} {
		if disktest.IsOpen(d.t, p) {
			d.t.Errorf("%s is open", p)
		}
	}
	return d.dir.Replace(tmp, path)
}

// raft-boltdb's file is closed before it is replaced.
func TestReplacedFileIsClosed(t *testing.T) {
	d := moved(t)
	l := d.mustOpen(t, Options{MoveAfter: 100 << 10})
	l.opts.Files = closedFirst{d, t}
	must(t, l.DeleteRange(1, l.back.Last()+1))
	must(t, tidy(l))
	if l.back.Last() != 0 {
		t.Fatal("nothing was replaced; the test shows nothing")
	}
}
