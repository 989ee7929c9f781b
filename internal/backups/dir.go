package backups

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// Dir is a Store of files in a directory.
type Dir struct{ path string }

// OpenDir returns the Store of a directory, which it makes if it is missing. The error is the
// system's if no file can be written there.
func OpenDir(path string) (Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return Dir{}, err
	}
	return Dir{path}, CheckDir(path)
}

// CheckDir returns an error if something is at path and no file can be written there. It leaves
// nothing behind.
func CheckDir(path string) error {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !fi.IsDir() {
		err = &fs.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR}
	}
	if err != nil {
		return err
	}
	f, err := Dir{path}.temporary()
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// temporary makes a file for what is not complete yet. Its name is that of no backup.
func (d Dir) temporary() (*os.File, error) {
	return os.CreateTemp(d.path, ".flotilla-*"+diskfile.TmpSuffix)
}

// Save implements Store. The file is on the disk when Save returns.
func (d Dir) Save(_ context.Context, name string, write func(io.Writer) error) error {
	f, err := d.temporary()
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // which does nothing once it has its name
	if err := errors.Join(write(&pacedFile{File: f}), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(d.path, name)); err != nil {
		return err
	}
	return diskfile.SyncDir(d.path)
}

// pacedFile is a file on a disk that the log may be on too.
type pacedFile struct {
	*os.File
	pace diskfile.Pace
}

// Write implements io.Writer.
func (f *pacedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	if err == nil {
		err = f.pace.Wrote(f.File, n)
	}
	return n, err
}

// Load implements Store.
func (d Dir) Load(_ context.Context, name string) (io.ReadCloser, error) {
	return os.Open(filepath.Join(d.path, name))
}

// List implements Store.
func (d Dir) List(context.Context) ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("listing the backups: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// Remove implements Store.
func (d Dir) Remove(_ context.Context, name string) error {
	if err := os.Remove(filepath.Join(d.path, name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
