package main

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
)

const tempPrefix = ".flotilla-export-" // of a file's name while it is written

// target is the directory of an export. Nothing outside of it is written, and no symbolic link is followed.
type target struct {
	root *os.Root
	open bool            // others than the owner may enter it
	dirs map[string]bool // that were written to
}

// openTarget opens the directory, which is made if it is not there. It may hold files of the given keys, and what an export that
// was interrupted left behind, which is removed.
func openTarget(dir string, keys []string) (*target, error) {
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
	t := &target{root: root, open: info.Mode().Perm()&0o077 != 0, dirs: map[string]bool{".": true}}
	wanted := make(map[string]bool, len(keys))
	for _, key := range keys {
		wanted[key] = true
	}
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("looking through %s: %w", dir, err)
		case d.IsDir():
			return nil
		case d.Type().IsRegular() && strings.HasPrefix(d.Name(), tempPrefix):
			return root.Remove(name)
		case d.Type().IsRegular() && wanted[name]:
			return nil
		}
		return fmt.Errorf("%s holds %s, which this export would not write; give an empty directory", dir, shown(name))
	})
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return t, nil
}

func (t *target) close() error { return t.root.Close() }

// checkName says why a key, which came from the network, cannot be the name of a file below the directory.
func checkName(key string) error {
	name := filepath.FromSlash(key)
	if key == "" || key == "." || path.Clean(key) != key || !filepath.IsLocal(name) || filepath.ToSlash(name) != key || strings.ContainsRune(key, 0) {
		return errors.New("it cannot be the name of a file here")
	}
	return nil
}

// write writes a file whole or not at all, and reports whether it did: an equal one stays.
func (t *target) write(key string, value []byte) (bool, error) {
	if err := checkName(key); err != nil {
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
	temp := path.Join(dir, tempPrefix+rand.Text())
	err := t.writeFile(temp, value)
	if err == nil {
		err = t.root.Rename(temp, key)
	}
	if err != nil {
		t.root.Remove(temp) // the next run does it otherwise
		return false, fmt.Errorf("it cannot be written (%s)", reasonOf(err))
	}
	t.dirs[dir] = true
	return true, nil
}

// makeDir makes a directory and those above it, none of which may be a symbolic link.
func (t *target) makeDir(dir string) error {
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
		return fmt.Errorf("%s is in the way, which is no directory", shown(dir))
	}
	return fmt.Errorf("its directory cannot be made (%s)", reasonOf(err))
}

// holds reports whether there is a file with this content already. One with another content is an error.
func (t *target) holds(key string, value []byte) (bool, error) {
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

func (t *target) writeFile(name string, value []byte) error {
	f, err := t.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	return errors.Join(err, f.Sync(), f.Close())
}

// sync makes the names of what was written last. Windows cannot, and needs it not.
func (t *target) sync() error {
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
