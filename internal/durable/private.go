package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Everything in the directory is for this process's user alone. Directories have mode 0700 and
// files 0600, whatever the umask is and whatever a copy or a backup has made of them.

// MakePrivate takes the rights of group and others from the log, the snapshots and the small files,
// and from the directory itself if nothing else is in it. It returns what still has such rights
// because they could not be taken.
func (d *Dir) MakePrivate() (exposed []string, err error) {
	if runtime.GOOS == "windows" {
		return nil, nil // there are no such rights
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	foreign := false
	for _, e := range entries {
		path := d.join(e.Name())
		if !ours(d.path, e) {
			foreign = true
			continue
		}
		err := filepath.WalkDir(path, func(path string, e fs.DirEntry, err error) error {
			if err == nil {
				err = private(path, e)
			}
			switch {
			case errors.Is(err, fs.ErrPermission):
				exposed, err = append(exposed, path), nil
			case errors.Is(err, fs.ErrNotExist):
				err = nil // the log's upkeep has removed it meanwhile
			}
			return err
		})
		if err != nil {
			return exposed, err
		}
	}
	if foreign {
		return exposed, nil
	}
	if fi, err := os.Stat(d.path); err != nil || fi.Mode().Perm()&0o077 == 0 {
		return exposed, err
	}
	if err := os.Chmod(d.path, 0o700); errors.Is(err, fs.ErrPermission) {
		return append(exposed, d.path), nil
	} else if err != nil {
		return exposed, err
	}
	return exposed, nil
}

// ours reports whether an entry of the data directory is one that this package has made.
func ours(dir string, e fs.DirEntry) bool {
	switch e.Name() {
	case lockName, snapsName, markName:
		return true
	}
	if isLog(e.Name()) || strings.HasSuffix(e.Name(), tmpSuffix) {
		return true
	}
	if e.IsDir() {
		return isAside(e.Name())
	}
	return e.Type().IsRegular() && isSmallFile(dir, e.Name())
}

// private takes the rights of group and others from one file or directory. Links are left alone.
func private(path string, e fs.DirEntry) error {
	fi, err := e.Info()
	if err != nil || !fi.IsDir() && !fi.Mode().IsRegular() || fi.Mode().Perm()&0o077 == 0 {
		return err
	}
	return os.Chmod(path, fi.Mode().Perm()&0o700)
}
