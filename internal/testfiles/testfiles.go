// Package testfiles shows tests what is in a directory that a node may be using.
package testfiles

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// T is what is used of a *testing.T, without its package: only tests may link that.
type T interface {
	Helper()
	Fatal(args ...any)
}

// Read returns the content of each file below a directory, by its path from there, with slashes. If
// a file is renamed or removed meanwhile, Read looks again: what a rename hides would be missed.
func Read(t T, dir string) map[string]string {
	t.Helper()
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	all, err := again(func() (map[string]string, error) { return read(dir) })
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// again repeats a look that finds a file gone, which it has just seen.
func again(look func() (map[string]string, error)) (all map[string]string, err error) {
	for range 100 {
		if all, err = look(); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return all, err
}

func read(dir string) (map[string]string, error) {
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		all[filepath.ToSlash(name)] = string(content)
		return err
	})
	return all, err
}

// With returns the paths, as Read names them, of the files below a directory whose path or content
// has any of the texts. They are sorted.
func With(t T, dir string, texts ...string) (paths []string) {
	t.Helper()
	all := Read(t, dir)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		has := func(text string) bool { return strings.Contains(path, text) || strings.Contains(all[path], text) }
		if slices.ContainsFunc(texts, has) {
			paths = append(paths, path)
		}
	}
	return paths
}
