package raftlog

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// dir is the directory around a log.
type dir struct{ path string }

func (d dir) log() string { return filepath.Join(d.path, "raft.db") }

// InPlace implements Files.
func (dir) InPlace(string) error { return nil }

// Added implements Files.
func (dir) Added(string) error { return nil }

// Removing implements Files.
func (dir) Removing(string) {}

// Replace implements Files.
func (dir) Replace(tmp, path string) error { return os.Rename(tmp, path) }

// newDir returns a directory with an empty log.
func newDir(t testing.TB) dir {
	t.Helper()
	d := dir{disktest.MemDir(t)}
	tmp := d.log() + diskfile.TmpSuffix
	must(t, Create(tmp, d.log(), nil))
	must(t, os.Rename(tmp, d.log()))
	return d
}

// open opens the log in a directory.
func (d dir) open(o Options) (*Log, error) {
	f, err := diskfile.OpenKept(d.log())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	o.Path, o.File, o.Files, o.Logger = d.log(), f, d, slog.New(slog.DiscardHandler)
	return Open(o)
}

// mustOpen opens the log in a directory. It fails the test if the log fails.
func (d dir) mustOpen(t testing.TB, o Options) *Log {
	t.Helper()
	if o.OnFail == nil {
		o.OnFail = func(err error) { t.Errorf("the log failed: %v", err) }
	}
	l, err := d.open(o)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// all reads everything that raft could read from a log.
func all(t testing.TB, l *Log) disktest.Log {
	t.Helper()
	var s disktest.Log
	must(t, l.Run(func() error { return s.Read(l, l) }))
	return s
}

// readFiles reads everything that is in a directory, without opening the log.
func (d dir) readFiles(t testing.TB) disktest.Log {
	t.Helper()
	var s disktest.Log
	sum, err := Read(d.log(), func(e *raft.Log) error {
		s.Entries = append(s.Entries, *e)
		return nil
	})
	must(t, err)
	s.First, s.Last, s.Term = sum.First, sum.Last, sum.Term
	return s
}

// vote stores a vote as raft does.
func vote(l *Log, term uint64, candidate string) error {
	return errors.Join(
		l.SetUint64([]byte(keyTerm), term),
		l.SetUint64([]byte(keyVoteTerm), term),
		l.Set([]byte(keyCandidate), []byte(candidate)),
	)
}

// tidy does the upkeep of a log that was not started.
func tidy(l *Log) error {
	return l.Run(func() error {
		l.prepare()
		l.free()
		for l.front.Bytes() > l.opts.MoveAfter && l.moveSegment() {
			l.free()
		}
		return nil
	})
}
