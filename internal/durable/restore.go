package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/snapstore"
)

// here reports why the directory's path does not lead to the directory.
func (d *Dir) here() error {
	err := diskfile.Leads(d.path, d.self)
	if moved, ok := errors.AsType[*MovedError](err); ok {
		moved.Dir = true
	}
	return err
}

// Check looks whether the directory and its files are where this process has put them, and may be
// written. It costs a few system calls and writes nothing. The error is a [MovedError], or the
// system's.
func (d *Dir) Check() error {
	if err := d.here(); err != nil {
		return err
	}
	for _, path := range d.places.Paths() {
		if err := d.places.InPlace(path); err != nil {
			return err
		}
	}
	if s := d.places.Snapshot(); s != nil {
		for name, f := range snapshotFiles(s) {
			if err := diskfile.Leads(filepath.Join(s.Dir, name), f); err != nil && s == d.places.Snapshot() {
				return err
			}
		}
	}
	return writable(d.path)
}

func snapshotFiles(s *diskfile.Snapshot) map[string]*os.File {
	return map[string]*os.File{snapstore.MetaName: s.Meta, snapstore.StateName: s.State}
}

// Relock makes sure that the lock file is the one that this process has locked. If that was deleted
// or replaced it locks another one, and returns true. The error is an [InUseError] if another
// process was faster: that process has the directory now.
func (d *Dir) Relock() (again bool, err error) {
	if err := d.here(); err != nil {
		return false, err
	}
	err = diskfile.Leads(d.join(lockName), d.lock)
	if err == nil {
		return false, nil
	}
	if _, moved := errors.AsType[*MovedError](err); !moved {
		return false, err
	}
	f, _, err := openLock(d.path)
	if err != nil {
		return false, err
	}
	_ = d.lock.Close()
	d.lock = f
	return true, nil
}

// Restore writes anew what was deleted under this process, from the files that it has kept open.
// They hold everything that it ever wrote, so nothing is lost as long as nothing else is written
// meanwhile: logs and snapshot stores must be closed. Existing files are not changed. The error is
// a [MovedError] if something is in the place of a file, or if the directory was moved instead of
// deleted.
func (d *Dir) Restore() error {
	if err := d.here(); err != nil {
		moved, ok := errors.AsType[*MovedError](err)
		if !ok || !moved.Missing || !deleted(d.self) {
			return err
		}
		if err := d.recreate(); err != nil {
			return fmt.Errorf("create data directory again: %w", err)
		}
	}
	if _, err := d.Relock(); err != nil {
		return err
	}
	if s := d.places.Snapshot(); s != nil {
		if err := d.restoreSnapshot(s); err != nil {
			return fmt.Errorf("restore snapshot: %w", err)
		}
	}
	for _, path := range d.places.Paths() {
		var err error
		if filepath.Base(path) == logName {
			err = d.restoreLog(path)
		} else {
			err = d.rewrite(path, false, nil)
		}
		if err != nil {
			return fmt.Errorf("restore %s: %w", path, err)
		}
	}
	return nil
}

// recreate makes the directory again. Its lock follows.
func (d *Dir) recreate() error {
	if _, err := makeDirs(d.path); err != nil {
		return err
	}
	self, err := os.Open(d.path)
	if err != nil {
		return err
	}
	_ = d.self.Close()
	d.self = self
	return nil
}

// rewrite writes a file anew from the one that is kept open, if it is missing or always. The new
// file takes its place if check finds it right; a nil check takes everything.
func (d *Dir) rewrite(path string, always bool, check func(*os.File) error) error {
	err := d.places.InPlace(path)
	moved, ok := errors.AsType[*MovedError](err)
	switch {
	case err == nil && !always:
		return nil
	case err != nil && (!ok || !moved.Missing):
		return err
	}
	files := d.places.At(path)
	if len(files) == 0 {
		return nil
	}
	tmp := path + tmpSuffix
	f, err := diskfile.Copy(tmp, files[0])
	if err != nil {
		return err
	}
	if check != nil {
		if err := check(f); err != nil {
			_, _ = f.Close(), os.Remove(tmp)
			return diskfile.Named(path, err)
		}
	}
	d.places.Keep(path, f)
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		d.places.Drop(path, f)
		return err
	}
	d.places.KeepOnly(path, f)
	return diskfile.SyncDir(d.path)
}

// restoreSnapshot writes the newest snapshot anew if a part of it is missing.
func (d *Dir) restoreSnapshot(s *diskfile.Snapshot) error {
	whole := true
	for name, f := range snapshotFiles(s) {
		err := diskfile.Leads(filepath.Join(s.Dir, name), f)
		if moved, ok := errors.AsType[*MovedError](err); err != nil && (!ok || !moved.Missing) {
			return err
		}
		whole = whole && err == nil
	}
	if whole {
		return nil
	}
	tmp := s.Dir + tmpSuffix
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return err
	}
	var err error
	again := &diskfile.Snapshot{Dir: s.Dir}
	if again.Meta, err = diskfile.Copy(filepath.Join(tmp, snapstore.MetaName), s.Meta); err != nil {
		return err
	}
	if again.State, err = diskfile.Copy(filepath.Join(tmp, snapstore.StateName), s.State); err != nil {
		_ = again.Meta.Close()
		return err
	}
	// The rest of the old snapshot is in the files that are open, so a crash in between loses no
	// more than is lost already.
	err = errors.Join(
		diskfile.SyncDir(tmp),
		os.RemoveAll(s.Dir),
		os.Rename(tmp, s.Dir),
		diskfile.SyncDir(filepath.Dir(s.Dir)),
		diskfile.SyncDir(d.path),
	)
	if err != nil {
		_, _ = again.Meta.Close(), again.State.Close()
		return err
	}
	d.places.SetSnapshot(again)
	return nil
}
