package durable

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
	"github.com/flotilla-ha/flotilla/internal/durable/raftlog"
)

func TestLock(t *testing.T) {
	t.Run("creates", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a", "b")
		d := lock(t, path)
		fi, err := os.Stat(path)
		must(t, err)
		if fi.Mode().Perm() != 0o700 || d.Path() != path {
			t.Errorf("mode %v, path %s", fi.Mode(), d.Path())
		}
		left, err := os.ReadDir(path)
		must(t, err)
		if len(left) != 1 || left[0].Name() != lockName {
			t.Errorf("the directory holds %v", left)
		}
	})
	t.Run("in use", func(t *testing.T) {
		path := t.TempDir()
		d := lock(t, path)
		_, err := Lock(path)
		if e, ok := errors.AsType[*InUseError](err); !ok || e.Path != path {
			t.Errorf("the second Lock in this process: %v", err)
		}
		out, err := child(t, "TestLockChild", path).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "refused: "+path+" is in use") {
			t.Errorf("the second Lock in another process: %v\n%s", err, out)
		}
		must(t, d.Close())
		lock(t, path)
	})
	t.Run("a file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		disktest.Put(t, path, nil)
		for _, path := range []string{path, filepath.Join(path, "below")} {
			if _, err := Lock(path); !errors.Is(err, syscall.ENOTDIR) {
				t.Errorf("%s is locked as a directory: %v", path, err)
			}
		}
	})
	t.Run("removes unfinished files", func(t *testing.T) {
		path := t.TempDir()
		disktest.Put(t, filepath.Join(path, "identity.tmp"), []byte("half"))
		lock(t, path)
		if _, err := os.Stat(filepath.Join(path, "identity.tmp")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is still there: %v", err)
		}
	})
}

// TestLockChild is the other process of TestLock.
func TestLockChild(t *testing.T) {
	path := os.Getenv(childKey)
	if path == "" {
		t.Skip("a part of TestLock and others")
	}
	d, err := Lock(path)
	if err == nil {
		_ = d.Close()
	}
	for _, want := range []error{fs.ErrPermission} {
		if errors.Is(err, want) {
			fmt.Println("is:", want)
		}
	}
	fmt.Println("refused:", err)
}

func TestSmallFiles(t *testing.T) {
	d := lock(t, disktest.MemDir(t))
	if _, err := d.ReadFile("identity"); err != fs.ErrNotExist {
		t.Errorf("a missing file: %v", err)
	}
	for _, data := range []string{"one", "", strings.Repeat("two", 1000)} {
		must(t, d.WriteFile("identity", []byte(data)))
		got, err := d.ReadFile("identity")
		must(t, err)
		disktest.Diff(t, data, string(got))
	}
	for _, name := range []string{"", ".", "..", "a/b", "../a", lockName, logName, snapsName, "a.tmp"} {
		if err := d.WriteFile(name, nil); err == nil || !strings.Contains(err.Error(), "no name for a small file") {
			t.Errorf("a file %q was written: %v", name, err)
		}
		if _, err := d.ReadFile(name); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a file %q was read: %v", name, err)
		}
	}
	path := filepath.Join(d.Path(), "identity")
	b := disktest.FileBytes(t, path)
	for n := range b {
		disktest.Put(t, path, b[:n])
		_, err := d.ReadFile("identity")
		disktest.IsDamaged(t, err, path)
	}
	disktest.Put(t, path, append(b, 0))
	_, err := d.ReadFile("identity")
	disktest.IsDamaged(t, err, path)
}

// TestKill kills a process that appends entries. All that it had acknowledged are there.
func TestKill(t *testing.T) {
	if path := os.Getenv(childKey); path != "" {
		appendForEver(t, path)
	}
	rounds := 15
	if testing.Short() {
		rounds = 4
	}
	path := disktest.MemDir(t)
	d := lock(t, path)
	must(t, openTestLog(t, d, true).Close())
	must(t, d.Close())
	var acked uint64
	for round := range rounds {
		c := child(t, "TestKill", path)
		out, err := c.StdoutPipe()
		must(t, err)
		must(t, c.Start())
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			var first, last, term uint64
			if _, err := fmt.Sscanf(lines.Text(), "acked %d %d %d", &first, &last, &term); err != nil {
				t.Errorf("child: %s", lines.Text())
			}
			acked = last
			if n == 20+7*round {
				must(t, c.Process.Kill())
			}
		}
		_ = c.Wait()
		d := lock(t, path)
		l := openTestLog(t, d, false)
		s := all(t, l)
		if s.Last < acked || acked == 0 {
			t.Fatalf("round %d: the log ends at %d, %d was acknowledged", round, s.Last, acked)
		}
		for _, e := range s.Entries {
			disktest.Diff(t, *disktest.Entry(e.Index, e.Term, 300), e)
		}
		must(t, l.Close())
		must(t, d.Close())
	}
	t.Logf("%d kills, %d entries acknowledged", rounds, acked)
}

// appendForEver is the child: it appends, compacts and votes until it is killed.
func appendForEver(t *testing.T, path string) {
	d := lock(t, path)
	l := openTestLog(t, d, false)
	last, err := l.LastIndex()
	must(t, err)
	for term := last + 1; ; term++ {
		must(t, l.SetUint64([]byte(disktest.KeyTerm), term))
		must(t, l.StoreLogs(disktest.Entries(last+1, last+3, term, 300)))
		last += 3
		if term%8 == 0 && last > 60 {
			must(t, l.DeleteRange(0, last-50))
		}
		first, err := l.FirstIndex()
		must(t, err)
		fmt.Println("acked", first, last, term)
	}
}

// BenchmarkStoreLog appends entries of 4 KiB one at a time, each synced to disk.
func BenchmarkStoreLog(b *testing.B) {
	e := func(i int) *raft.Log { return disktest.Entry(uint64(i)+1, 1, 4<<10) }
	b.Run("raft-boltdb", func(b *testing.B) {
		s, err := raftboltdb.New(raftboltdb.Options{
			Path:        filepath.Join(b.TempDir(), logName),
			BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
		})
		must(b, err)
		defer s.Close()
		benchmarkStore(b, s, e)
	})
	b.Run("durable", func(b *testing.B) {
		l := openTestLog(b, lock(b, b.TempDir()), true)
		benchmarkStore(b, l, e)
	})
}

func benchmarkStore(b *testing.B, s raft.LogStore, e func(int) *raft.Log) {
	b.SetBytes(4 << 10)
	data := e(0).Data
	for i := 0; b.Loop(); i++ {
		must(b, s.StoreLog(&raft.Log{Index: uint64(i) + 1, Term: 1, Data: data}))
	}
}

// A file that another has taken the place of is overwritten before it is removed. A second name of
// the log itself only goes: a crash has come before it was replaced.
func TestFormerLogIsErased(t *testing.T) {
	for _, replaced := range []bool{true, false} {
		t.Run(fmt.Sprintf("replaced: %v", replaced), func(t *testing.T) {
			path := t.TempDir()
			log := filepath.Join(path, logName)
			must(t, os.WriteFile(log, []byte("the log"), 0o600))
			must(t, os.Link(log, log+raftlog.FormerSuffix))
			if replaced {
				must(t, os.WriteFile(log+".new", []byte("the log"), 0o600))
				must(t, os.Rename(log+".new", log))
			}
			former, err := os.Open(log + raftlog.FormerSuffix)
			must(t, err)
			defer former.Close()
			lock(t, path)
			kept := make([]byte, len("the log"))
			_, err = former.ReadAt(kept, 0)
			must(t, err)
			if erased := strings.Trim(string(kept), "\x00") == ""; erased != replaced {
				t.Errorf("the former file holds %q", kept)
			}
			now, err := os.ReadFile(log)
			if err != nil || string(now) != "the log" {
				t.Errorf("the log holds %q, %v", now, err)
			}
			if _, err := os.Stat(log + raftlog.FormerSuffix); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the former file is still there: %v", err)
			}
		})
	}
}
