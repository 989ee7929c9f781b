package raftlog

import (
	"log/slog"
	"os"
	"path/filepath"

	"github.com/flotilla-ha/flotilla/internal/durable/boltlog"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
	"github.com/flotilla-ha/flotilla/internal/meter"
)

// ErrLocked is wrapped by the error of Open when another process has the file open.
var ErrLocked = boltlog.ErrLocked

// Files is what a log asks of the directory around it.
type Files interface {
	// InPlace reports whether a path still leads to the file that was opened there.
	InPlace(path string) error

	// Added says that there is a new file at path.
	Added(path string) error

	// Removing says that the file at path will be removed.
	Removing(path string)

	// Replace gives the file tmp the name path. The file that had it is gone then.
	Replace(tmp, path string) error
}

// Options say how to open a log. Path, File, Files and Logger are needed.
type Options struct {
	Path   string       // of raft-boltdb's file; the journal is beside it
	File   *os.File     // that file, open: what is checked must be what bbolt maps
	Files  Files        // the directory around it
	Known  State        // the log must hold at least this
	Logger *slog.Logger // gets what happens

	// OnFail is called once, on a goroutine of its own, at the first error. Nil: it is not called.
	OnFail func(error)

	// OnClose is called by Close with the newest state on disk. stuck says that bbolt has panicked:
	// it holds its lock of the file as long as the process lives. Nil: it is not called.
	OnClose func(s State, stuck bool)

	// Fault is asked before each write, and its error is taken for the disk's: for tests. Nil:
	// there is none.
	Fault func(op string) error

	// MoveAfter is the size of the journal in bytes beyond which its oldest entries go to
	// raft-boltdb. 0: 48 MiB, which is more than replica.Snapshots lets the log of a small state
	// grow to.
	MoveAfter int64

	// Sys writes the journal. Nil: this machine does.
	Sys journal.System

	// Synced is told how long each sync of the journal took. Nil: nothing is.
	Synced *meter.Histogram

	// Wrap replaces the store behind boltlog: for tests. Nil: it is raft-boltdb.
	Wrap func(boltlog.Store) boltlog.Store
}

// State is the newest state of a log that this process knows to be on disk. Files that hold less
// are not what the process wrote. The zero State knows nothing.
type State struct {
	back  boltlog.State
	front journal.Position
}

// Check checks raft-boltdb's file with plain reads, and that it holds at least the state. The error
// is a diskfile.Finding, or the system's.
func (s State) Check(f *os.File) error { return s.back.Check(f) }

// dir returns the directory of the log.
func (o Options) dir() string { return filepath.Dir(o.Path) }
