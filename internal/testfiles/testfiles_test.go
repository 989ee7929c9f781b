package testfiles

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a", "1")
	write("b/key", "2")
	if diff := cmp.Diff(map[string]string{"a": "1", "b/key": "2"}, Read(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a", "b/key"}, With(t, dir, "1", "key")); diff != "" {
		t.Errorf("files with (-want +got):\n%s", diff)
	}
	if got := With(t, dir, "3"); got != nil {
		t.Errorf("%v have a text that no file has", got)
	}
}

// A look during which a file is renamed does not count.
func TestAgain(t *testing.T) {
	want := map[string]string{"a": "1"}
	for name, test := range map[string]struct {
		gone  int // looks that find a file gone
		err   error
		looks int
	}{
		"at rest":         {0, nil, 1},
		"renamed":         {2, nil, 3},
		"always renamed":  {1000, fs.ErrNotExist, 100},
		"another failure": {0, fs.ErrPermission, 1},
	} {
		t.Run(name, func(t *testing.T) {
			looks := 0
			got, err := again(func() (map[string]string, error) {
				if looks++; looks <= test.gone {
					return nil, &fs.PathError{Op: "open", Path: "a.tmp", Err: fs.ErrNotExist}
				}
				return want, test.err
			})
			if !errors.Is(err, test.err) || looks != test.looks {
				t.Errorf("%v after %d looks, want %v after %d", err, looks, test.err, test.looks)
			}
			if diff := cmp.Diff(want, got); test.err == nil && diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}
