package exporter

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/records"
)

// export writes three records to a directory, and returns how many were written and the first
// error.
func export(t *testing.T, dir string, values map[string]string) (written int, first error) {
	t.Helper()
	var keys []string
	for key := range values {
		keys = append(keys, key)
	}
	target, err := OpenTarget(dir, keys)
	if err != nil {
		return 0, err
	}
	defer target.Close()
	for key, value := range values {
		done, err := target.Write(key, []byte(value))
		if done {
			written++
		}
		if err != nil {
			first = err
		}
	}
	if err := target.Sync(); err != nil {
		t.Error(err)
	}
	return written, first
}

// The directory of an export is empty, or holds what an earlier export left.
func TestExportInto(t *testing.T) {
	values := map[string]string{"a/b/c": "1", "a/d": "2", "e": ""}
	outside := t.TempDir()
	file := func(name, content string) func(dir string) error {
		return func(dir string) error {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return err
			}
			return os.WriteFile(path, []byte(content), 0o600)
		}
	}
	for name, test := range map[string]struct {
		prepare func(dir string) error
		written int
		err     string            // that it contains; empty: none
		files   map[string]string // nil: all records
	}{
		"does not exist": {prepare: os.Remove, written: 3},
		"empty":          {prepare: func(string) error { return nil }, written: 3},
		"an equal file":  {prepare: file("a/d", "2"), written: 2},
		"interrupted":    {prepare: file("a/"+records.TempPrefix+"XYZ", "half"), written: 3},
		"another content": {
			prepare: file("a/d", "3"), written: 2,
			err:   "there is a file with another content; remove it",
			files: map[string]string{"a/b/c": "1", "a/d": "3", "e": ""},
		},
		"another length": {
			prepare: file("e", "3"), written: 2,
			err:   "there is a file with another content",
			files: map[string]string{"a/b/c": "1", "a/d": "2", "e": "3"},
		},
		"another file": {
			prepare: file("x", "1"),
			err:     "holds x, which this export would not write; give an empty directory",
			files:   map[string]string{"x": "1"},
		},
		"a directory in the way": {
			prepare: func(dir string) error { return os.Mkdir(filepath.Join(dir, "e"), 0o700) }, written: 2,
			err:   "something else has this name",
			files: map[string]string{"a/b/c": "1", "a/d": "2"},
		},
		"a file in the way": {
			prepare: file("a/b", "1"),
			err:     "holds a/b, which this export would not write",
			files:   map[string]string{"a/b": "1"},
		},
		"a link": {
			prepare: func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "a")) },
			err:     "holds a, which this export would not write",
			files:   map[string]string{},
		},
		"a link for a directory": {
			prepare: func(dir string) error {
				if err := os.Remove(dir); err != nil {
					return err
				}
				return os.Symlink(outside, dir)
			},
			err:   "is a symbolic link, and those are not followed",
			files: map[string]string{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := test.prepare(dir); err != nil {
				t.Fatal(err)
			}
			written, err := export(t, dir, values)
			if written != test.written {
				t.Errorf("%d files were written, want %d", written, test.written)
			}
			if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("it says %v, want %q", err, test.err)
			}
			if test.files == nil {
				test.files = values
			}
			if diff := cmp.Diff(test.files, files(t, dir)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if left, _ := os.ReadDir(outside); len(left) > 0 {
				t.Errorf("outside there is now %v", left)
			}
		})
	}
}

// files returns the regular files below a directory, and fails if a mode is not what an export
// gives.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && info.Mode().Perm() != 0o700:
			t.Errorf("directory %s has mode %v", path, info.Mode().Perm())
		case info.Mode().IsRegular():
			if info.Mode().Perm() != 0o600 {
				t.Errorf("file %s has mode %v", path, info.Mode())
			}
			content, err := os.ReadFile(path)
			name, _ := filepath.Rel(dir, path)
			all[filepath.ToSlash(name)] = string(content)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Another program may change the directory while it is written to. No link that it makes is
// followed.
func TestWriteFollowsNoLink(t *testing.T) {
	dir, outside := filepath.Join(t.TempDir(), "dir"), t.TempDir()
	target, err := OpenTarget(dir, []string{"a/b", "c"})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	for name, to := range map[string]string{"a": outside, "c": filepath.Join(outside, "c"), "inside": "."} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for key, want := range map[string]string{
		"a/b":      "a is in the way: it is not a directory",
		"c":        "something else has this name",
		"inside/b": "inside is in the way: it is not a directory",
		"../b":     "it cannot be the name of a file here",
	} {
		if done, err := target.Write(key, []byte("1")); done || err == nil || err.Error() != want {
			t.Errorf("%s: %v, %v; want %q", key, done, err, want)
		}
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("outside there is now %v", left)
	}
	if err := target.Sync(); err != nil {
		t.Error(err)
	}
}

func TestOpen(t *testing.T) {
	for mode, want := range map[os.FileMode]bool{0o700: false, 0o755: true, 0o710: true} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		target, err := OpenTarget(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := target.Open(); got != want {
			t.Errorf("mode %v: open to others: %v, want %v", mode, got, want)
		}
		target.Close()
	}
}

func FuzzCheckName(f *testing.F) {
	for _, key := range []string{"a", "a/b", "../a", "/a", "a/../../b", "a\x00", `a\..\b`, "C:a", "..."} {
		f.Add(key)
	}
	root := filepath.FromSlash("/root/dir")
	f.Fuzz(func(t *testing.T, key string) {
		if CheckName(key) != nil {
			return
		}
		joined := filepath.Join(root, filepath.FromSlash(key))
		back, err := filepath.Rel(root, joined)
		back = filepath.ToSlash(back)
		if err != nil || back != key || back == "." || back == ".." || strings.HasPrefix(back, "../") {
			t.Errorf("%q becomes %q", key, joined)
		}
	})
}
