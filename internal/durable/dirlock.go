package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// openLock opens and locks the lock file of a directory. It starts again when the file was removed
// by a process that failed after creating it, so that two processes never lock two different files.
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
