package exporter

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/records"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
)

// Target is the directory of an export.
type Target struct {
	root *os.Root
	open bool            // users other than the owner may enter it
	dirs map[string]bool // that were written to
}

// OpenTarget opens the directory and creates it if it does not exist. The directory may hold files
// of the keys. It may also hold temporary files of an interrupted export, which are removed.
func OpenTarget(dir string, keys []string) (*Target, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is a symbolic link, and those are not followed; give the directory itself", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	if err := clean(root, dir, keys); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	open := info.Mode().Perm()&0o077 != 0
	return &Target{root: root, open: open, dirs: map[string]bool{".": true}}, nil
}

// clean removes temporary files, and refuses files that are not of the keys.
func clean(root *os.Root, dir string, keys []string) error {
	wanted := make(map[string]bool, len(keys))
	for _, key := range keys {
		wanted[key] = true
	}
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("reading %s: %w", dir, err)
		case d.IsDir():
			return nil
		case d.Type().IsRegular() && strings.HasPrefix(d.Name(), records.TempPrefix):
			return root.Remove(name)
		case d.Type().IsRegular() && wanted[name]:
			return nil
		}
		return fmt.Errorf("%s holds %s, which this export would not write; give an empty directory",
			dir, plaintext.Safe(name))
	})
}

// Open reports whether users other than the owner may enter the directory.
func (t *Target) Open() bool { return t.open }

// Close closes the directory.
func (t *Target) Close() error { return t.root.Close() }

// CheckName returns why a key cannot be the name of a file below the directory.
func CheckName(key string) error {
	name := filepath.FromSlash(key)
	if key == "" || key == "." || path.Clean(key) != key || !filepath.IsLocal(name) ||
		filepath.ToSlash(name) != key || strings.ContainsRune(key, 0) {
		return errors.New("it cannot be the name of a file here")
	}
	return nil
}

// Write writes a file whole or not at all. It reports false for a file that is already there with
// this content. A file with another content stays and is an error.
func (t *Target) Write(key string, value []byte) (bool, error) {
	if err := CheckName(key); err != nil {
		return false, err
	}
	dir := path.Dir(key)
	if err := t.makeDir(dir); err != nil {
		return false, err
	}
	switch same, err := t.holds(key, value); {
	case err != nil || same:
		return false, err
	}
	temp := path.Join(dir, records.TempPrefix+rand.Text())
	err := t.writeFile(temp, value)
	if err == nil {
		err = t.root.Rename(temp, key)
	}
	if err != nil {
		t.root.Remove(temp) // if this fails, the next run removes it
		return false, fmt.Errorf("it cannot be written (%s)", reasonOf(err))
	}
	t.dirs[dir] = true
	return true, nil
}

// makeDir creates a directory and those above it. None of them may be a symbolic link.
func (t *Target) makeDir(dir string) error {
	if dir == "." {
		return nil
	}
	above := path.Dir(dir)
	if err := t.makeDir(above); err != nil {
		return err
	}
	info, err := t.root.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err = t.root.Mkdir(dir, 0o700); err == nil {
			t.dirs[above] = true
			return nil
		}
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("%s is in the way: it is not a directory", plaintext.Safe(dir))
	}
	return fmt.Errorf("its directory cannot be created (%s)", reasonOf(err))
}

// holds reports whether the file is already there with this content. Another content is an error.
func (t *Target) holds(key string, value []byte) (bool, error) {
	info, err := t.root.Lstat(key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("it cannot be read (%s)", reasonOf(err))
	case !info.Mode().IsRegular():
		return false, errors.New("something else has this name")
	}
	have, err := []byte(nil), error(nil)
	if info.Size() == int64(len(value)) {
		if have, err = t.root.ReadFile(key); err != nil {
			return false, fmt.Errorf("it cannot be read (%s)", reasonOf(err))
		}
	}
	if info.Size() != int64(len(value)) || !bytes.Equal(have, value) {
		return false, errors.New("there is a file with another content; remove it, or give an empty directory")
	}
	return true, nil
}

func (t *Target) writeFile(name string, value []byte) error {
	f, err := t.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	return errors.Join(err, f.Sync(), f.Close())
}

// Sync makes the names of the written files durable. Windows has no such call and needs none.
func (t *Target) Sync() error {
	if runtime.GOOS == "windows" {
		return nil
	}
	var errs []error
	for dir := range t.dirs {
		f, err := t.root.Open(dir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, f.Sync(), f.Close())
	}
	return errors.Join(errs...)
}

// reasonOf returns an error of the file system without the path, which the report names.
func reasonOf(err error) string {
	if e, ok := err.(*fs.PathError); ok {
		err = e.Err
	}
	return err.Error()
}
