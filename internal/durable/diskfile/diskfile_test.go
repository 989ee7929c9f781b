package diskfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func FuzzSum(f *testing.F) {
	f.Add(AppendSum([]byte("data")))
	f.Add([]byte{1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		if body, ok := CutSum(b); ok && !bytes.Equal(AppendSum(bytes.Clone(body)), b) {
			t.Error("a wrong checksum was taken")
		}
		if body, ok := CutSum(AppendSum(bytes.Clone(b))); ok != (len(b) > 0) || ok && !bytes.Equal(body, b) {
			t.Errorf("got %x, %v for %x", body, ok, b)
		}
	})
}

// A file that is moved, deleted or replaced is noticed; one that this process replaces is not.
func TestInPlace(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(path string, p *Places) error
		want *MovedError // nil: the file is in place
	}{
		{"nothing", func(string, *Places) error { return nil }, nil},
		{"deleted", func(path string, _ *Places) error { return os.Remove(path) }, &MovedError{Missing: true}},
		{"moved", func(path string, _ *Places) error { return os.Rename(path, path+"2") }, &MovedError{Missing: true}},
		{"replaced", func(path string, _ *Places) error {
			return errors.Join(os.WriteFile(path+"2", nil, 0o600), os.Rename(path+"2", path))
		}, &MovedError{}},
		{"replaced by this process", func(path string, p *Places) error {
			f, err := Create(path+"2", nil)
			p.Keep(path, f)
			err = errors.Join(err, os.Rename(path+"2", path))
			p.KeepOnly(path, f)
			return err
		}, nil},
		{"forgotten", func(path string, p *Places) error { p.KeepOnly(path, nil); return os.Remove(path) }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var p Places
			t.Cleanup(p.Close)
			path := filepath.Join(t.TempDir(), "file")
			f, err := Create(path, []byte("data"))
			if err != nil {
				t.Fatal(err)
			}
			p.Keep(path, f)
			if err := test.do(path, &p); err != nil {
				t.Fatal(err)
			}
			err = p.InPlace(path)
			moved, ok := errors.AsType[*MovedError](err)
			if ok != (test.want != nil) || ok && (moved.Missing != test.want.Missing || moved.Path != path) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestCopy(t *testing.T) {
	dir := t.TempDir()
	from, err := Create(filepath.Join(dir, "from"), bytes.Repeat([]byte("data"), 10_000))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := Copy(filepath.Join(dir, "to"), from)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	want, err1 := os.ReadFile(from.Name())
	got, err2 := os.ReadFile(to.Name())
	if err := errors.Join(err1, err2); err != nil || !bytes.Equal(want, got) {
		t.Errorf("copied %d of %d bytes: %v", len(got), len(want), err)
	}
}
