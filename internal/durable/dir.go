package durable

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/raftlog"
	"github.com/flotilla-ha/flotilla/internal/durable/snapstore"
)

const probeSize = 256 << 10

// Dir is a data directory, locked by this process. Its methods may be called by any goroutine;
// those that change one file must not run at the same time for that file.
type Dir struct {
	// Meters count on while logs are closed and opened.
	Meters Meters

	path    string
	self    *os.File // the directory
	lock    *os.File
	created bool     // the lock file, by Lock
	made    []string // directories, by Lock, deepest first

	places diskfile.Places
	snaps  atomic.Pointer[snapstore.Store] // those that were opened last; nil: none were
	known  raftlog.State                   // of the log that was closed last
	stuck  bool                            // bbolt has panicked, and holds its lock for ever
}

// Lock makes the data directory at path this process's own. It creates the directory (mode 0700) if
// it is missing, and checks that it can be written and has room for 256 KiB. The lock ends with
// Close or with the process.
//
// The error is an [InUseError], or wraps the system's (fs.ErrPermission, syscall.ENOSPC,
// syscall.ENOTDIR and so on). After an error nothing is left that Lock has made.
func Lock(path string) (*Dir, error) {
	made, err := makeDirs(path)
	if err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	d, err := lockDir(path)
	if err != nil {
		for _, m := range made {
			_ = os.Remove(m) // fails if somebody else has put something there
		}
		return nil, err
	}
	d.made = made
	return d, nil
}

func lockDir(path string) (*Dir, error) {
	if fi, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	} else if !fi.IsDir() {
		return nil, fmt.Errorf("data directory: %w", &os.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR})
	}
	f, created, err := openLock(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, lock: f, created: created}
	if d.self, err = os.Open(path); err == nil {
		err = d.Probe()
	}
	if err != nil {
		if created {
			_ = os.Remove(f.Name())
		}
		if d.self != nil {
			_ = d.self.Close()
		}
		_ = f.Close()
		return nil, err
	}
	return d, nil
}

// Probe checks that the directory can be written and has room for 256 KiB. It removes what a crash
// or a full disk may have left half-written. No write may be in progress.
func (d *Dir) Probe() error {
	left, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	for _, e := range left {
		if !strings.HasSuffix(e.Name(), tmpSuffix) {
			continue
		}
		if err := d.removeUnfinished(e.Name()); err != nil {
			return fmt.Errorf("remove unfinished file: %w", err)
		}
	}
	probe := filepath.Join(d.path, "probe"+tmpSuffix)
	f, err := diskfile.Create(probe, bytes.Repeat([]byte{0xa5}, probeSize))
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(probe))
	}
	if err != nil {
		return fmt.Errorf("data directory cannot be written: %w", err)
	}
	return nil
}

// removeUnfinished removes a file that is not finished. It overwrites one that was replaced, unless
// that is still the log under another name.
func (d *Dir) removeUnfinished(name string) error {
	path := d.join(name)
	if name == logName+raftlog.FormerSuffix {
		former, err := os.Stat(path)
		if err != nil {
			return err
		}
		if now, err := os.Stat(d.join(logName)); err == nil && !os.SameFile(former, now) {
			if err := diskfile.EraseAt(path, nil); err != nil {
				return err
			}
		}
	}
	return os.Remove(path)
}

// Path returns the directory as it was given to Lock.
func (d *Dir) Path() string { return d.path }

// join returns the path of a name in the directory.
func (d *Dir) join(name string) string { return filepath.Join(d.path, name) }

// Close releases the lock. Logs and snapshot stores must be closed before. If the directory is
// empty again, what Lock has made is removed.
func (d *Dir) Close() error {
	if left, err := os.ReadDir(d.path); d.created && err == nil && len(left) == 1 {
		// before the lock is released: a process that waits for it starts again
		_ = os.Remove(d.lock.Name())
		for _, m := range d.made {
			_ = os.Remove(m)
		}
	}
	d.places.Close()
	return errors.Join(d.self.Close(), d.lock.Close())
}
