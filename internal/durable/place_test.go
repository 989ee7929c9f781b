package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/boltlog"
	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
	"github.com/flotilla-ha/flotilla/internal/durable/raftlog"
	"github.com/flotilla-ha/flotilla/internal/durable/snapstore"
)

const (
	segmentName = "raft-0000000000000001.log" // of the journal
	spareName   = "raft-0000000000000002.log" // the next one
)

// keptDir is a directory with all that a node has in it, and what it holds.
func keptDir(t *testing.T) (*Dir, *Log, state) {
	t.Helper()
	d := lock(t, filepath.Join(disktest.MemDir(t), "data"))
	must(t, d.WriteFile("node", []byte("identity")))
	l := openTestLog(t, d, true)
	for !slices.Contains(d.places.Paths(), filepath.Join(d.path, spareName)) {
		runtime.Gosched() // upkeep makes it, and then leaves the directory alone
	}
	must(t, l.SetUint64([]byte(disktest.KeyTerm), 3))
	must(t, l.StoreLogs(disktest.Entries(1, 20, 3, 100)))
	snaps, err := d.OpenSnapshots(l, nil)
	must(t, err)
	for index := uint64(5); index <= 10; index += 5 {
		sink, err := snaps.Create(1, index, 3, voters("x"), 1, testTransport())
		must(t, err)
		_, err = fmt.Fprintf(sink, "state %d", index)
		must(t, err)
		must(t, sink.Close())
	}
	must(t, l.DeleteRange(1, 7))
	return d, l, all(t, l)
}

// TestRestore: a file that is deleted under the process is noticed, named, and written anew as it
// was. Something else in its place is not changed.
func TestRestore(t *testing.T) {
	for _, test := range []struct {
		name    string
		do      func(t *testing.T, d *Dir)
		says    string // the end of the path that Check names
		dir     bool
		missing bool
		refused bool // Restore touches nothing
	}{
		{"log", func(t *testing.T, d *Dir) { must(t, os.Remove(filepath.Join(d.path, logName))) }, logName, false, true, false},
		{"segment", func(t *testing.T, d *Dir) { must(t, os.Remove(filepath.Join(d.path, segmentName))) }, segmentName, false, true, false},
		{"spare segment", func(t *testing.T, d *Dir) { must(t, os.Remove(filepath.Join(d.path, spareName))) }, spareName, false, true, false},
		{"whole log", func(t *testing.T, d *Dir) {
			removeJournal(t, d)
			must(t, os.Remove(filepath.Join(d.path, logName)))
		}, segmentName, false, true, false},
		{"segment replaced", func(t *testing.T, d *Dir) {
			path := filepath.Join(d.path, segmentName)
			disktest.Put(t, path+"2", disktest.FileBytes(t, path))
			must(t, os.Rename(path+"2", path))
		}, segmentName, false, false, true},
		{"small file", func(t *testing.T, d *Dir) { must(t, os.Remove(filepath.Join(d.path, "node"))) }, "node", false, true, false},
		{"snapshots", func(t *testing.T, d *Dir) { must(t, os.RemoveAll(filepath.Join(d.path, snapsName))) }, "", false, true, false},
		{"part of a snapshot", func(t *testing.T, d *Dir) {
			must(t, os.Remove(filepath.Join(d.places.Snapshot().Dir, snapstore.MetaName)))
		}, snapstore.MetaName, false, true, false},
		{"directory", func(t *testing.T, d *Dir) { must(t, os.RemoveAll(d.path)) }, "data", true, true, false},
		{"directory moved", func(t *testing.T, d *Dir) { must(t, os.Rename(d.path, d.path+"2")) }, "data", true, true, true},
		{"directory replaced", func(t *testing.T, d *Dir) {
			must(t, os.Rename(d.path, d.path+"2"))
			must(t, os.CopyFS(d.path, os.DirFS(d.path+"2")))
		}, "data", true, false, true},
		{"link switched", func(t *testing.T, d *Dir) {
			must(t, os.Rename(d.path, d.path+"1"))
			must(t, os.CopyFS(d.path+"2", os.DirFS(d.path+"1")))
			must(t, os.Symlink(d.path+"2", d.path))
		}, "data", true, false, true},
		{"log replaced", func(t *testing.T, d *Dir) {
			path := filepath.Join(d.path, logName)
			disktest.Put(t, path+"2", disktest.FileBytes(t, path))
			must(t, os.Rename(path+"2", path))
		}, logName, false, false, true},
		{"snapshot replaced", func(t *testing.T, d *Dir) {
			path := filepath.Join(d.places.Snapshot().Dir, snapstore.StateName)
			disktest.Put(t, path+"2", disktest.FileBytes(t, path))
			must(t, os.Rename(path+"2", path))
		}, snapstore.StateName, false, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, l, want := keptDir(t)
			must(t, d.Check())
			test.do(t, d)
			err := d.Check()
			moved, ok := errors.AsType[*MovedError](err)
			if !ok || moved.Missing != test.missing || moved.Dir != test.dir ||
				!strings.HasSuffix(moved.Path, test.says) {
				t.Fatalf("Check says %#v", err)
			}
			must(t, l.Close())
			err = d.Restore()
			if test.refused {
				if again, ok := errors.AsType[*MovedError](err); !ok || *again != *moved {
					t.Errorf("Restore says %v", err)
				}
				return
			}
			must(t, err)
			must(t, d.Check())
			got := openTestLog(t, d, false)
			disktest.Diff(t, want, all(t, got))
			snaps, err := d.OpenSnapshots(got, nil)
			must(t, err)
			list, err := snaps.List()
			must(t, err)
			if len(list) == 0 || list[0].Index != 10 || list[0].Term != 3 {
				t.Errorf("the snapshots are %v", list)
			}
			small, err := d.ReadFile("node")
			if err != nil || string(small) != "identity" {
				t.Errorf("the small file holds %q, %v", small, err)
			}
			if _, err := Lock(d.path); !errors.As(err, new(*InUseError)) {
				t.Errorf("another Lock says %v", err)
			}
			if left, _ := filepath.Glob(filepath.Join(d.path, "*"+tmpSuffix)); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestNamelessFile: no write to a deleted file is reported as done.
func TestNamelessFile(t *testing.T) {
	for op, write := range map[string]func(l *Log) error{
		"store entries":  func(l *Log) error { return l.StoreLog(disktest.Entry(2, 1, 10)) },
		"store the vote": func(l *Log) error { return l.Set([]byte(disktest.KeyCandidate), []byte("x")) },
		"delete entries": func(l *Log) error { return l.DeleteRange(1, 1) },
	} {
		t.Run(op, func(t *testing.T) {
			d := lock(t, disktest.MemDir(t))
			failed := make(chan error, 1)
			l, err := d.OpenLog(LogOptions{Create: true, Failed: func(err error) { failed <- err }})
			must(t, err)
			must(t, l.StoreLog(disktest.Entry(1, 1, 10)))
			removeJournal(t, d)
			err = l.Run(func() error { return write(l) })
			if _, ok := errors.AsType[*MovedError](err); !ok || !strings.Contains(err.Error(), op) {
				t.Errorf("the write says %v", err)
			}
			if got := <-failed; !errors.Is(err, got) {
				t.Errorf("Failed was told %v", got)
			}
			must(t, l.Close())
		})
	}
}

// removeJournal removes the files of the journal.
func removeJournal(t *testing.T, d *Dir) {
	t.Helper()
	must(t, journal.RemoveAll(d.path))
}

// TestReopenedLogHoldsAll: a log that holds less than this process has written is refused, even if
// each of its pages is right.
func TestReopenedLogHoldsAll(t *testing.T) {
	d := lock(t, disktest.MemDir(t))
	l := openTestLog(t, d, true)
	must(t, l.StoreLogs(disktest.Entries(1, 5, 1, 10)))
	must(t, l.Close())
	l = openTestLog(t, d, false)
	front := filepath.Join(d.path, "raft-0000000000000001.log")
	before := disktest.FileBytes(t, front) // as on a disk that takes writes and forgets them
	must(t, l.StoreLog(disktest.Entry(6, 1, 10)))
	must(t, l.Close())
	after := disktest.FileBytes(t, front)
	overwrite(t, front, before)
	if s, err := raftlog.Read(l.Path(), nil); err != nil || s.Last != 5 {
		t.Fatalf("the older state is not right in itself, so this test shows nothing: %+v, %v", s, err)
	}
	_, err := d.OpenLog(LogOptions{})
	disktest.IsDamaged(t, err, front)
	if !strings.Contains(err.Error(), "this process has written") {
		t.Error(err)
	}
	overwrite(t, front, after)
	disktest.Diff(t, uint64(6), all(t, openTestLog(t, d, false)).Last)
}

// overwrite changes the content of a file, and keeps the file itself.
func overwrite(t *testing.T, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	_, err = f.Write(b)
	must(t, errors.Join(err, f.Close()))
}

// TestReopenAfterPanic: bbolt keeps its lock of the file when it panics. The same process must
// still be able to open the log again.
func TestReopenAfterPanic(t *testing.T) {
	d := lock(t, disktest.MemDir(t))
	failed := make(chan error, 1)
	l, err := d.OpenLog(LogOptions{
		Create: true,
		Failed: func(err error) { failed <- err },
		wrap:   func(s boltlog.Store) boltlog.Store { return panicking{s} },
	})
	must(t, err)
	for i := uint64(1); i <= 200; i++ { // several segments
		must(t, l.StoreLog(disktest.Entry(i, 1, 2000)))
	}
	must(t, l.DeleteRange(1, 190)) // upkeep removes the first ones
	if err := <-failed; !strings.Contains(err.Error(), "bbolt: a page is not") {
		t.Fatal(err)
	}
	must(t, l.Close())
	again := openTestLog(t, d, false)
	must(t, again.StoreLog(disktest.Entry(201, 1, 20)))
	disktest.Diff(t, uint64(201), all(t, again).Last)
	must(t, d.Check())
}

// TestSecondProcessWithoutLock: a process that finds no lock file finds the log locked.
func TestSecondProcessWithoutLock(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	d, _, _ := keptDir(t)
	must(t, os.Remove(filepath.Join(d.path, lockName)))
	other := lock(t, d.path)
	if _, err := other.OpenLog(LogOptions{}); !errors.As(err, new(*InUseError)) {
		t.Errorf("a second process opens the log: %v", err)
	}
	if again, err := d.Relock(); again || !errors.As(err, new(*InUseError)) {
		t.Errorf("the first one has the lock again: %v, %v", again, err)
	}
	must(t, other.Close())
	if again, err := d.Relock(); !again || err != nil {
		t.Errorf("the first one has not got the lock: %v, %v", again, err)
	}
	if _, err := Lock(d.path); !errors.As(err, new(*InUseError)) {
		t.Errorf("a third process gets %v", err)
	}
}

// TestSnapshotsAreFollowed: Check looks at the newest snapshot, also while older ones are removed.
func TestSnapshotsAreFollowed(t *testing.T) {
	d, l, _ := keptDir(t)
	snaps, err := d.OpenSnapshots(l, nil)
	must(t, err)
	for index := uint64(11); index < 15; index++ {
		sink, err := snaps.Create(raft.SnapshotVersionMax, index, 3, voters("x"), 1, testTransport())
		must(t, err)
		_, err = fmt.Fprintf(sink, "state %d", index)
		must(t, err)
		must(t, d.Check())
		must(t, sink.Close())
		must(t, d.Check())
	}
	if got := d.places.Snapshot().Dir; !strings.Contains(filepath.Base(got), "3-14-") {
		t.Errorf("the newest is %s", got)
	}
}

// testTransport is a transport, which raft needs to encode the names of a snapshot's peers.
func testTransport() raft.Transport {
	_, trans := raft.NewInmemTransport("x")
	return trans
}
