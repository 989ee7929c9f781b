package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const asidePrefix = "set-aside-"

// AsideName is the name of a directory for SetAside.
func AsideName(t time.Time) string { return asidePrefix + t.UTC().Format("20060102-150405.000") }

// isAside reports whether a name in the directory is one of AsideName.
func isAside(name string) bool { return strings.HasPrefix(name, asidePrefix) }

// SetAside moves all that is in the directory, except for its lock and what was set aside before, into
// a new directory of that name in it. The file last goes last: as long as it is there, SetAside is to
// be repeated. Logs and snapshot stores must be closed before.
func (d *Dir) SetAside(name, last string) error {
	to := filepath.Join(d.path, name)
	if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("set the node's state aside: %w", err)
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("set the node's state aside: %w", err)
	}
	move := func(file string) error {
		err := os.Rename(filepath.Join(d.path, file), filepath.Join(to, file))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("set the node's state aside: %w", err)
		}
		return nil
	}
	for _, e := range entries {
		if n := e.Name(); n == lockName || n == last || isAside(n) {
			continue
		}
		if err := move(e.Name()); err != nil {
			return err
		}
	}
	for _, dir := range []string{to, d.path} {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	if err := move(last); err != nil {
		return err
	}
	return errors.Join(syncDir(to), syncDir(d.path))
}
