package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/raftlog"
	"github.com/flotilla-ha/flotilla/internal/durable/snapstore"
)

// View is a data directory for a reader. It changes nothing, not even what a crash has left
// half-written. While it is not InUse it keeps a node from starting on the directory, until Close.
type View struct {
	// InUse says that a process has the directory. Small files and snapshots can be read all the
	// same, because they are replaced as a whole. The log cannot, because it changes while it is
	// read. On a system without locks it is false.
	InUse bool

	path string
	lock *os.File // nil: there is no lock file, or another process has the lock
}

// Look opens a data directory for reading. The error wraps fs.ErrNotExist if there is none.
func Look(path string) (*View, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, fmt.Errorf("%s is no directory", path)
	}
	v := &View{path: path}
	f, err := os.Open(filepath.Join(path, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil // a copy, or no node's directory
	}
	if err != nil {
		return nil, err
	}
	ok, err := lockFile(f)
	if err != nil || !ok {
		v.InUse = err == nil
		return v, errors.Join(err, f.Close())
	}
	v.lock = f
	return v, nil
}

// Close releases the directory.
func (v *View) Close() error {
	if v.lock == nil {
		return nil
	}
	return v.lock.Close()
}

// ReadFile is that of Dir.
func (v *View) ReadFile(name string) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	data, f, err := readSmall(filepath.Join(v.path, name), os.Open)
	if err != nil {
		return nil, err
	}
	return data, f.Close()
}

// ReadMark is that of Dir.
func (v *View) ReadMark() Mark { return readMark(v.path) }

// LogView is what a raft log holds.
type LogView = raftlog.Summary

// Log checks the raft log. f gets each entry in order. The error is exactly fs.ErrNotExist if there
// is no log, an InUseError if it is in use, a DamagedError if it is damaged, or f's.
func (v *View) Log(f func(*raft.Log) error) (LogView, error) {
	if v.InUse {
		return LogView{}, &InUseError{Path: v.path}
	}
	path := filepath.Join(v.path, logName)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return LogView{}, fs.ErrNotExist
	}
	return raftlog.Read(path, f)
}

// Snapshots returns the descriptions of the snapshots, newest first. Size is that of the content.
func (v *View) Snapshots() ([]*raft.SnapshotMeta, error) { return snapstore.View(v.path, v.InUse) }

// OpenSnapshot opens the content of a snapshot. The reader must find out whether the content is
// whole, because it is sealed.
func (v *View) OpenSnapshot(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	return snapstore.ViewOne(v.path, id)
}
