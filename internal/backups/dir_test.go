package backups

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	want := func(names ...string) {
		t.Helper()
		got, err := d.List(t.Context())
		if diff := cmp.Diff(names, got); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
	}
	was := "" // what the file has; empty: there is none
	save := func(text string, then error) error {
		return d.Save(t.Context(), "x", func(w io.Writer) error {
			io.WriteString(w, text)
			if b, err := os.ReadFile(filepath.Join(path, "x")); string(b) != was || was == "" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("before all is written the file has %q, %v", b, err)
			}
			return then
		})
	}
	want()
	broken := errors.New("broken")
	if err := save("cut", broken); !errors.Is(err, broken) {
		t.Errorf("a backup that failed: %v", err)
	}
	want()
	for _, text := range []string{"first", "second"} {
		if err := save(text, nil); err != nil {
			t.Fatal(err)
		}
		want("x")
		was = text
		r, err := d.Load(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); string(got) != text || err != nil {
			t.Errorf("%q is stored, and %q comes back: %v", text, got, err)
		}
		r.Close()
	}
	if fi, err := os.Stat(filepath.Join(path, "x")); err != nil || runtime.GOOS != "windows" && fi.Mode().Perm() != 0o600 {
		t.Errorf("the file has the mode %v: %v", fi.Mode(), err)
	}
	for range 2 {
		if err := d.Remove(t.Context(), "x"); err != nil {
			t.Error(err)
		}
	}
	if _, err := d.Load(t.Context(), "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a backup that is gone: %v", err)
	}
	file := filepath.Join(path, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(file); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file as a directory: %v", err)
	}
}
