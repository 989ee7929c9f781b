package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
	"github.com/flotilla-ha/flotilla/internal/durable/snapstore"
)

// look returns what a View shows: the log, the content of its snapshots, and its entries.
func look(t *testing.T, path string) (view LogView, contents []string, list []*raft.Log, err error) {
	t.Helper()
	v, err := Look(path)
	must(t, err)
	defer func() { must(t, v.Close()) }()
	snaps, err := v.Snapshots()
	must(t, err)
	for _, m := range snaps {
		_, r, err := v.OpenSnapshot(m.ID)
		must(t, err)
		b, err := io.ReadAll(r)
		must(t, errors.Join(err, r.Close()))
		if int64(len(b)) != m.Size {
			t.Errorf("snapshot %s has %d bytes, its description says %d", m.ID, len(b), m.Size)
		}
		contents = append(contents, string(b))
	}
	view, err = v.Log(func(e *raft.Log) error {
		list = append(list, e)
		return nil
	})
	return view, contents, list, err
}

// A View shows what is there, and changes nothing.
func TestLook(t *testing.T) {
	path := disktest.MemDir(t)
	d := lock(t, path)
	must(t, d.WriteFile("id", []byte("x")))
	l := openTestLog(t, d, true)
	must(t, l.StoreLogs(disktest.Entries(1, 30, 2, 50)))
	must(t, l.SetUint64([]byte(disktest.KeyTerm), 3))
	snaps, err := d.OpenSnapshots(l, nil)
	must(t, err)
	for index := uint64(10); index <= 20; index += 10 {
		sink, err := snaps.Create(1, index, 2, raft.Configuration{}, 1, nil)
		must(t, err)
		_, err = sink.Write([]byte{'s', byte('0' + index/10)})
		must(t, errors.Join(err, sink.Close()))
	}
	must(t, l.DeleteRange(1, 5))

	v, err := Look(path)
	must(t, err)
	id, err := v.ReadFile("id")
	must(t, err)
	if _, err := v.Log(nil); !v.InUse || string(id) != "x" || !errors.As(err, new(*InUseError)) {
		t.Errorf("in use %v, file %q, the log: %v", v.InUse, id, err)
	}
	must(t, v.Close())
	_, contents, _, err := look(t, path)
	disktest.Diff(t, []string{"s2", "s1"}, contents)
	if !errors.As(err, new(*InUseError)) {
		t.Errorf("a log in use: %v", err)
	}

	must(t, l.Close())
	must(t, d.Close())
	disktest.Put(t, filepath.Join(path, "half"+tmpSuffix), []byte("half"))
	must(t, os.MkdirAll(filepath.Join(path, snapsName, "3-30-1"+tmpSuffix), 0o700))
	before := disktest.Tree(t, path)
	view, contents, list, err := look(t, path)
	must(t, err)
	view.Bytes = 0
	disktest.Diff(t, LogView{Term: 3, First: 6, Last: 30}, view)
	disktest.Diff(t, []string{"s2", "s1"}, contents)
	disktest.Diff(t, disktest.Entries(6, 30, 2, 50), list)
	disktest.Diff(t, before, disktest.Tree(t, path))

	v, err = Look(path)
	must(t, err)
	if _, err := Lock(path); v.InUse || !errors.As(err, new(*InUseError)) {
		t.Errorf("a node may start while a View is open: %v", err)
	}
	stop := errors.New("stop")
	if _, err := v.Log(func(*raft.Log) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a reader that gives up: %v", err)
	}
	must(t, v.Close())
	must(t, lock(t, path).Close())
}

func TestLookAtDamage(t *testing.T) {
	if _, err := Look(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	disktest.Put(t, file, nil)
	if _, err := Look(file); err == nil || !strings.Contains(err.Error(), "is no directory") {
		t.Errorf("a file was taken for a directory: %v", err)
	}
	path := t.TempDir()
	if _, contents, _, err := look(t, path); err != fs.ErrNotExist || len(contents) > 0 {
		t.Errorf("an empty directory: %v, %v", contents, err)
	}
	if left, _ := os.ReadDir(path); len(left) > 0 {
		t.Errorf("a View has left %v", left)
	}
	disktest.Put(t, filepath.Join(path, logName), []byte("x"))
	if _, _, _, err := look(t, path); !errors.As(err, new(*DamagedError)) {
		t.Errorf("a damaged log: %v", err)
	}
	must(t, os.MkdirAll(filepath.Join(path, snapsName, "1-2-3"), 0o700))
	disktest.Put(t, filepath.Join(path, snapsName, "1-2-3", snapstore.MetaName), []byte("{"))
	v, err := Look(path)
	must(t, err)
	if _, err := v.Snapshots(); !errors.As(err, new(*DamagedError)) {
		t.Errorf("a damaged snapshot: %v", err)
	}
	must(t, v.Close())
}
