package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
	"github.com/flotilla-ha/flotilla/internal/durable/raftlog"
)

// RemoveState deletes the raft log and all snapshots: for a node that left its cluster. Logs and
// snapshot stores must be closed before. It may be repeated after an error or a crash.
func (d *Dir) RemoveState() error {
	for _, path := range d.places.Paths() {
		if isLog(filepath.Base(path)) {
			d.places.KeepOnly(path, nil)
		}
	}
	d.places.SetSnapshot(nil)
	d.known, d.stuck = raftlog.State{}, false
	if err := os.Remove(d.join(markName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the mark of what was applied: %w", err)
	}
	// The log goes before the snapshots. OpenLog refuses snapshots without a log until this was
	// repeated. It would refuse a log without its snapshots as damaged.
	if err := os.Remove(d.join(logName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove raft log: %w", err)
	}
	if err := diskfile.SyncDir(d.path); err != nil {
		return err
	}
	if err := journal.RemoveAll(d.path); err != nil {
		return fmt.Errorf("remove raft log: %w", err)
	}
	if err := os.RemoveAll(d.join(snapsName)); err != nil {
		return fmt.Errorf("remove snapshots: %w", err)
	}
	return diskfile.SyncDir(d.path)
}

// SetAside moves everything in the directory into a new directory of that name in it, except for
// the lock and what was set aside before. The file last goes last: as long as it is there, SetAside
// is to be repeated. Logs and snapshot stores must be closed before.
func (d *Dir) SetAside(name, last string) error {
	if err := d.SetAsideBut(name, last); err != nil {
		return err
	}
	to := d.join(name)
	if err := os.Rename(d.join(last), filepath.Join(to, last)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set the node's state aside: %w", err)
	}
	return errors.Join(diskfile.SyncDir(to), diskfile.SyncDir(d.path))
}

// SetAsideBut is SetAside, and leaves one file where it is. It may be repeated.
func (d *Dir) SetAsideBut(name, stays string) error {
	to := d.join(name)
	if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("set the node's state aside: %w", err)
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("set the node's state aside: %w", err)
	}
	move := func(file string) error {
		err := os.Rename(d.join(file), filepath.Join(to, file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set the node's state aside: %w", err)
		}
		return nil
	}
	for _, e := range entries {
		if n := e.Name(); n == lockName || n == stays || isAside(n) {
			continue
		}
		if err := move(e.Name()); err != nil {
			return err
		}
	}
	for _, dir := range []string{to, d.path} {
		if err := diskfile.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// CopyAside copies a small file into the directory of that name for SetAside, as it is. A copy that
// is there is replaced.
func (d *Dir) CopyAside(name, file string) error {
	to := d.join(name)
	if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	b, err := os.ReadFile(d.join(file))
	if err != nil {
		return err
	}
	path := filepath.Join(to, file)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := diskfile.Create(path, b)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), diskfile.SyncDir(to))
}
