package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/flotilla-ha/flotilla/internal/durable/boltlog"
	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
	"github.com/flotilla-ha/flotilla/internal/durable/raftlog"
)

// Log is raft's log and stable store.
type Log = raftlog.Log

// LogOptions say how to open a raft log.
type LogOptions struct {
	// Create makes a new log; there must be none. Otherwise there must be one: a log that is
	// missing beside a known identity is refused, because a voter that forgot its vote may vote
	// twice.
	Create bool

	// Failed is called once, on a goroutine of its own, at the first disk error, or with
	// [ErrRestart]. Nil: it is not called.
	Failed func(error)

	// Faults are those of the disk, for tests.
	Faults Faults

	// Logger receives what happens. Nil: nothing is logged.
	Logger *slog.Logger

	wrap func(boltlog.Store) boltlog.Store // for tests; nil: not
}

// Faults are what a test has the disk of a log do. The zero Faults is a disk that works.
type Faults struct {
	// Before is called before the log is opened, with "open", and before each batch is written, with
	// what the first change in it is. Its error is taken for the disk's. Nil: it is not called.
	Before func(op string) error

	// System writes the journal, which has the newest entries and the votes. Nil: this machine does.
	System journal.System
}

// OpenLog opens the raft log or makes a new one. All of its files are checked as a whole; a
// [DamagedError] says what is wrong. One log at a time may be open.
func (d *Dir) OpenLog(o LogOptions) (*Log, error) {
	path := d.join(logName)
	if o.Create {
		if err := d.createLog(path, o.Faults.System); err != nil {
			return nil, fmt.Errorf("create raft log: %w", err)
		}
	}
	if o.Faults.Before != nil {
		if err := o.Faults.Before("open"); err != nil {
			return nil, fmt.Errorf("open raft log: %w", err)
		}
	}
	if d.stuck {
		if err := d.restoreLog(path); err != nil {
			return nil, fmt.Errorf("open raft log: %w", err)
		}
	}
	f, err := diskfile.OpenKept(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &DamagedError{Path: d.path, Reason: "the raft log " + logName + " is missing"}
	}
	if err != nil {
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	if err := d.places.InPlace(path); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	l, err := raftlog.Open(raftlog.Options{
		Path:    path,
		File:    f,
		Files:   logFiles{d},
		Known:   d.known,
		Logger:  orDiscard(o.Logger),
		OnFail:  o.Failed,
		OnClose: func(s raftlog.State, stuck bool) { d.known, d.stuck = s, stuck },
		Fault:   o.Faults.Before,
		Sys:     o.Faults.System,
		Synced:  &d.Meters.LogSync,
		Wrap:    o.wrap,
	})
	if err != nil {
		_ = f.Close()
		if errors.Is(err, raftlog.ErrLocked) {
			err = fmt.Errorf("open raft log: %w", &InUseError{Path: d.path})
		}
		return nil, err
	}
	d.places.KeepOnly(path, nil)
	d.places.Keep(path, f)
	l.Start()
	return l, nil
}

// logFiles keeps a directory's files open, and knows which of them it has.
type logFiles struct{ *Dir }

// InPlace implements raftlog.Files.
func (d logFiles) InPlace(path string) error { return d.places.InPlace(path) }

// Added implements raftlog.Files.
func (d logFiles) Added(path string) error {
	f, err := diskfile.OpenKept(path)
	if err != nil {
		return err
	}
	d.places.KeepOnly(path, nil)
	d.places.Keep(path, f)
	return nil
}

// Removing implements raftlog.Files.
func (d logFiles) Removing(path string) { d.places.KeepOnly(path, nil) }

// Replace implements raftlog.Files.
func (d logFiles) Replace(tmp, path string) error {
	f, err := diskfile.OpenKept(tmp)
	if err != nil {
		return err
	}
	d.places.Keep(path, f)
	if err := os.Rename(tmp, path); err != nil {
		d.places.Drop(path, f)
		return err
	}
	d.places.KeepOnly(path, f)
	return diskfile.SyncDir(d.path)
}

// createLog makes the file under another name, so that a crash leaves no half-made log.
func (d *Dir) createLog(path string, sys journal.System) error {
	if d.HasLog() {
		return &os.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	snaps := d.join(snapsName)
	if left, err := os.ReadDir(snaps); err == nil && len(left) > 0 {
		return &DamagedError{Path: snaps, Reason: "there are snapshots, but no raft log"}
	}
	tmp := path + tmpSuffix
	_ = os.Remove(tmp)
	if err := raftlog.Create(tmp, path, sys); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return diskfile.SyncDir(d.path)
}

// HasLog reports whether there is a raft log. If that cannot be found out, it is true.
func (d *Dir) HasLog() bool {
	_, err := os.Lstat(d.join(logName))
	return !errors.Is(err, fs.ErrNotExist)
}

// restoreLog writes the log's file anew from the one that is kept open, if it is missing or if
// bbolt has it locked for ever.
func (d *Dir) restoreLog(path string) error {
	if err := d.rewrite(path, d.stuck, d.known.Check); err != nil {
		return err
	}
	d.stuck = false
	return nil
}

// orDiscard returns l, or a logger that drops everything if l is nil.
func orDiscard(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
