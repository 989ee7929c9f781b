package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/examples/s3backup/s3store"
)

var _ flotilla.BackupStore = (*s3store.Store)(nil)

const (
	part  = 8 << 20      // of an upload
	large = 2*part + 100 // has three parts
)

// content returns n bytes, in which no two parts are alike.
func content(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// save stores b, written in pieces.
func save(t *testing.T, s *s3store.Store, name string, b []byte) error {
	return s.Save(t.Context(), name, func(w io.Writer) error {
		for piece := range slices.Chunk(b, 100_000) {
			if _, err := w.Write(piece); err != nil {
				return err
			}
		}
		return nil
	})
}

func load(t *testing.T, s *s3store.Store, name string) ([]byte, error) {
	r, err := s.Load(t.Context(), name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

// What is stored comes back, of every size, until it is removed. It replaces what had its name.
func TestStore(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	c := config(f)
	s := open(t, c)
	for _, size := range []int{large, part + 1, part, 10, 0} {
		b := content(size)
		if err := save(t, s, "a", b); err != nil {
			t.Fatal(err)
		}
		if got, err := load(t, s, "a"); err != nil || !bytes.Equal(got, b) {
			t.Errorf("of %d bytes %d come back, %v", size, len(got), err)
		}
		if names, err := s.List(t.Context()); err != nil || !cmp.Equal(names, []string{"a"}) {
			t.Errorf("what is stored: %q, %v", names, err)
		}
	}
	for range 2 { // it may be gone already
		if err := s.Remove(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	}
	wantNothing(t, c)
	_, err := s.Load(t.Context(), "a")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the end of it: %v", err)
	}
	wantError(t, err, "loading s3://backups/"+c.Prefix+"/a at "+f.URL)
	for _, name := range []string{"", ".", "..", "a/b", "../a", `a\b`} {
		_, err := s.Load(t.Context(), name)
		wantError(t, err, "is no name of a backup")
		wantError(t, save(t, s, name, nil), "is no name of a backup")
		wantError(t, s.Remove(t.Context(), name), "is no name of a backup")
	}
}

// All names in the directory are listed, also those of many pages, and no others.
func TestList(t *testing.T) {
	t.Parallel()
	const many = 2100 // a page has a thousand
	c := config(newFront(t))
	dir := filepath.Join(gateway.dir, serverFiles, "objects", bucket, filepath.FromSlash(c.Prefix))
	for _, d := range []string{dir + "/deeper", dir + "2"} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var want []string
	for i := range many {
		want = append(want, fmt.Sprintf("b%05d", i))
	}
	for _, name := range append([]string{"deeper/x", "../" + filepath.Base(dir) + "2/x"}, want...) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := open(t, c).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// If a backup cannot be made to its end, nothing of it is stored, however much was sent.
func TestBrokenBackup(t *testing.T) {
	t.Parallel()
	c := config(newFront(t))
	s := open(t, c)
	for _, size := range []int{0, 10, large} {
		err := s.Save(t.Context(), "a", func(w io.Writer) error {
			if _, err := w.Write(content(size)); err != nil {
				return err
			}
			return errEarly
		})
		if !errors.Is(err, errEarly) {
			t.Errorf("after %d bytes: %v", size, err)
		}
		wantNothing(t, c)
	}
}

// A part that is missing cannot be made good by going on.
func TestCarelessBackup(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	c := config(f)
	f.set(on("PUT", "partNumber=1", answer(http.StatusForbidden, "AccessDenied", "Access Denied.")))
	err := open(t, c).Save(t.Context(), "a", func(w io.Writer) error {
		for range 3 {
			w.Write(content(part + 1)) // it ignores the error
			f.set(nil)
		}
		return nil
	})
	wantError(t, err, "AccessDenied")
	wantNothing(t, c)
}
