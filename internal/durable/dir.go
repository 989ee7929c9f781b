package durable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

const (
	lockName  = "lock"
	logName   = "raft.db"
	snapsName = "snapshots"
	tmpSuffix = ".tmp"

	probeSize  = 256 << 10
	fileMagic  = "flf1"
	fileHeader = 12 // magic, length, checksum
)

// Dir is a data directory, locked by this process. Its methods may be called by any
// goroutine; those that change one file must not run at the same time for that file.
type Dir struct {
	path    string
	self    *os.File // the directory
	lock    *os.File
	created bool     // the lock file, by Lock
	made    []string // directories, by Lock, deepest first

	places places
	mark   mark // of the log that was closed last
	stuck  bool // bbolt has panicked and holds its lock of the log's file for ever
}

// Lock makes the data directory at path this process's own. It creates the directory
// (mode 0700) if it is missing, and checks that it can be written and has room for 256 KiB.
// The lock ends with Close or with the process.
//
// The error is an [InUseError], or wraps the system's (fs.ErrPermission, syscall.ENOSPC,
// syscall.ENOTDIR and so on). After an error nothing that Lock made is left.
func Lock(path string) (*Dir, error) {
	made, err := makeDirs(path)
	if err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	d, err := lockDir(path)
	if err != nil {
		for _, m := range made {
			_ = os.Remove(m) // refuses a directory that somebody else put something into
		}
		return nil, err
	}
	d.made = made
	return d, nil
}

// makeDirs creates path and what is missing above it, and returns what it created, deepest first.
func makeDirs(path string) (made []string, err error) {
	path = filepath.Clean(path)
	var missing []string
	for p := path; ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) || p == filepath.Dir(p) {
			break
		}
		missing = append(missing, p)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		err := os.Mkdir(missing[i], 0o700)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			for _, m := range made {
				_ = os.Remove(m)
			}
			return nil, err
		}
		if err == nil {
			made = append([]string{missing[i]}, made...)
		}
	}
	return made, nil
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

// openLock opens and locks the lock file. It starts again when the file was removed
// by a process that failed after creating it, so that two never lock two different files.
func openLock(path string) (f *os.File, created bool, err error) {
	name := filepath.Join(path, lockName)
	for {
		f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		created = err == nil
		if errors.Is(err, fs.ErrExist) {
			f, err = os.OpenFile(name, os.O_RDWR, 0o600)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
		}
		if err != nil {
			return nil, false, fmt.Errorf("lock data directory: %w", err)
		}
		ok, err := lockFile(f)
		if err == nil && !ok {
			err = &InUseError{Path: path}
		}
		if err != nil {
			_ = f.Close()
			return nil, false, err
		}
		mine, err1 := f.Stat()
		named, err2 := os.Stat(name)
		if err1 == nil && err2 == nil && os.SameFile(mine, named) {
			return f, created, nil
		}
		_ = f.Close()
	}
}

// Probe checks that the directory can be written and has room for 256 KiB, and removes what a crash or a full disk may have left
// half-written. Nobody else may be writing.
func (d *Dir) Probe() error {
	left, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	for _, e := range left {
		if !strings.HasSuffix(e.Name(), tmpSuffix) {
			continue
		}
		if err := os.Remove(filepath.Join(d.path, e.Name())); err != nil {
			return fmt.Errorf("remove unfinished file: %w", err)
		}
	}
	probe := filepath.Join(d.path, "probe"+tmpSuffix)
	f, err := createSynced(probe, bytes.Repeat([]byte{0xa5}, probeSize))
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(probe))
	}
	if err != nil {
		return fmt.Errorf("data directory cannot be written: %w", err)
	}
	return nil
}

// Path returns the directory as it was given to Lock.
func (d *Dir) Path() string { return d.path }

// Close releases the lock. Logs and snapshot stores must be closed before. What Lock made is removed if nothing has come to it.
func (d *Dir) Close() error {
	if left, err := os.ReadDir(d.path); d.created && err == nil && len(left) == 1 {
		_ = os.Remove(d.lock.Name()) // before the lock is released: whoever waits for it then starts again
		for _, m := range d.made {
			_ = os.Remove(m)
		}
	}
	d.places.close()
	return errors.Join(d.self.Close(), d.lock.Close())
}

// ReadFile returns what WriteFile stored. The error is exactly fs.ErrNotExist if there
// is no such file, and a [DamagedError] if the file is not as it was written.
func (d *Dir) ReadFile(name string) ([]byte, error) {
	path, err := d.file(name)
	if err != nil {
		return nil, err
	}
	open := openKept
	if d.lock == nil { // a View only looks
		open = os.Open
	}
	f, err := open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	if err == nil {
		b, err = decodeFile(b)
	}
	if err != nil || d.lock == nil {
		_ = f.Close()
	} else {
		d.places.only(path, nil)
		d.places.keep(path, f)
	}
	if err != nil {
		return nil, d.named(path, err)
	}
	return b, nil
}

// WriteFile replaces the file as a whole: after a crash it holds either what it held or data.
// When it returns nil, data is on disk. The name has no path separators and does not end in ".tmp".
func (d *Dir) WriteFile(name string, data []byte) error {
	path, err := d.file(name)
	if err != nil {
		return err
	}
	tmp := path + tmpSuffix
	f, err := createSynced(tmp, encodeFile(data))
	if err != nil {
		return err
	}
	d.places.keep(path, f)
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		d.places.drop(path, f)
		return err
	}
	d.places.only(path, f)
	return syncDir(d.path)
}

// RemoveFile deletes what WriteFile stored. What does not exist is deleted already.
func (d *Dir) RemoveFile(name string) error {
	path, err := d.file(name)
	if err != nil {
		return err
	}
	d.places.only(path, nil)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(d.path)
}

// HasLog reports whether there is a raft log. What cannot be looked at counts as there.
func (d *Dir) HasLog() bool {
	_, err := os.Lstat(filepath.Join(d.path, logName))
	return !errors.Is(err, fs.ErrNotExist)
}

// RemoveState deletes the raft log and all snapshots: for a node that left its cluster.
// Logs and snapshot stores must be closed before. It may be repeated after an error or a crash.
func (d *Dir) RemoveState() error {
	d.places.only(filepath.Join(d.path, logName), nil)
	d.places.setSnapshot(nil)
	d.mark, d.stuck = mark{}, false
	if err := d.removeMark(); err != nil {
		return err
	}
	// The log goes before the snapshots: snapshots without a log are refused by OpenLog until this has
	// been repeated, a log without its snapshots is refused as damaged.
	if err := os.Remove(filepath.Join(d.path, logName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove raft log: %w", err)
	}
	if err := syncDir(d.path); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(d.path, snapsName)); err != nil {
		return fmt.Errorf("remove snapshots: %w", err)
	}
	return syncDir(d.path)
}

func (d *Dir) file(name string) (string, error) {
	if name == "" || filepath.Base(name) != name || name == "." || name == ".." ||
		name == lockName || name == logName || name == snapsName || name == markName || strings.HasSuffix(name, tmpSuffix) {
		return "", fmt.Errorf("no name for a small file: %q", name)
	}
	return filepath.Join(d.path, name), nil
}

// named gives a checker's finding the name of its file; other errors pass.
func (d *Dir) named(path string, err error) error {
	if found, ok := errors.AsType[*damage](err); ok {
		return &DamagedError{Path: path, Reason: found.reason}
	}
	return err
}

func encodeFile(data []byte) []byte {
	b := make([]byte, 0, fileHeader+len(data))
	b = append(b, fileMagic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(data, castagnoli()))
	return append(b, data...)
}

func decodeFile(b []byte) ([]byte, error) {
	switch {
	case len(b) < fileHeader:
		return nil, damaged("it is only %d bytes long", len(b))
	case string(b[:4]) != fileMagic:
		return nil, damaged("it does not begin as it should")
	case uint64(binary.BigEndian.Uint32(b[4:])) != uint64(len(b)-fileHeader):
		return nil, damaged("its length is wrong")
	case binary.BigEndian.Uint32(b[8:]) != crc32.Checksum(b[fileHeader:], castagnoli()):
		return nil, damaged("its checksum is wrong")
	}
	return b[fileHeader:], nil
}

// castagnoli is CRC-32C (RFC 3720): it finds every flipped bit and every burst of up
// to 32 bits. MakeTable returns the same table every time.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// createSynced writes a new file, and returns it open. After an error there is none.
func createSynced(path string, data []byte) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		_, _ = f.Close(), os.Remove(path)
		return nil, err
	}
	return f, nil
}

func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil // a directory cannot be synced there
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// discard is where a nil logger writes.
func discard(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
