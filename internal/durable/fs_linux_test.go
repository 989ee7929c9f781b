package durable

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

// tmpfs mounts a small file system in memory.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("durable", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func TestUnwritable(t *testing.T) {
	t.Run("read-only file system", func(t *testing.T) {
		dir := tmpfs(t, "size=1m")
		must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		for _, path := range []string{dir, filepath.Join(dir, "new")} {
			if _, err := Lock(path); !errors.Is(err, syscall.EROFS) {
				t.Errorf("%s: %v", path, err)
			}
		}
	})
	t.Run("another user's", func(t *testing.T) {
		dir, err := os.MkdirTemp("/tmp", "durable")
		must(t, err)
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		if os.Getuid() != 0 {
			must(t, os.Chmod(dir, 0o500))
			if _, err := Lock(dir); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("got %v", err)
			}
			return
		}
		must(t, os.Chmod(dir, 0o755))
		exe := filepath.Join(dir, "test")
		self, err := os.Executable()
		must(t, err)
		disktest.Put(t, exe, disktest.FileBytes(t, self))
		must(t, os.Chmod(exe, 0o755))
		for _, path := range []string{dir, filepath.Join(dir, "new")} {
			c := exec.CommandContext(t.Context(), exe, "-test.run=^TestLockChild$")
			c.Env, c.Dir = append(os.Environ(), childKey+"="+path), dir
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			out, err := c.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "is: "+fs.ErrPermission.Error()) {
				t.Errorf("%s: %v\n%s", path, err, out)
			}
		}
		left, err := os.ReadDir(dir)
		must(t, err)
		if len(left) != 1 {
			t.Errorf("the directory holds %v", left)
		}
	})
}

func TestFullDisk(t *testing.T) {
	fillUp := func(t *testing.T, dir string) {
		err := os.WriteFile(filepath.Join(dir, "ballast"), bytes.Repeat([]byte{1}, 8<<20), 0o600)
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("the file system is not full: %v", err)
		}
	}
	t.Run("Lock", func(t *testing.T) {
		dir := tmpfs(t, "size=1m")
		fillUp(t, dir)
		for _, path := range []string{dir, filepath.Join(dir, "a", "b")} {
			if _, err := Lock(path); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s: %v", path, err)
			}
		}
		left, err := os.ReadDir(dir)
		must(t, err)
		if len(left) != 1 {
			t.Errorf("the directory holds %v", left)
		}
	})
	t.Run("small file", func(t *testing.T) {
		dir := tmpfs(t, "size=1m")
		d := lock(t, dir)
		must(t, d.WriteFile("identity", []byte("old")))
		fillUp(t, dir)
		if err := d.WriteFile("identity", make([]byte, 64<<10)); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v", err)
		}
		got, err := d.ReadFile("identity")
		if err != nil || string(got) != "old" {
			t.Errorf("the file holds %q: %v", got, err)
		}
	})
	t.Run("log", func(t *testing.T) {
		dir := tmpfs(t, "size=4m")
		d := lock(t, dir)
		failed := make(chan error, 1)
		l, err := d.OpenLog(LogOptions{Create: true, Failed: func(err error) { failed <- err }})
		must(t, err)
		must(t, l.StoreLogs(disktest.Entries(1, 10, 1, 100)))
		fillUp(t, dir)
		var acked uint64 = 10
		err = l.Run(func() error {
			for {
				if err := l.StoreLog(disktest.Entry(acked+1, 1, 10000)); err != nil {
					return err
				}
				acked++
			}
		})
		if got := <-failed; !errors.Is(err, syscall.ENOSPC) || !errors.Is(got, syscall.ENOSPC) {
			t.Errorf("got %v, Failed was told %v", err, got)
		}
		must(t, l.Close())
		must(t, os.Remove(filepath.Join(dir, "ballast")))
		s := all(t, openTestLog(t, d, false))
		if s.Last != acked {
			t.Errorf("the log ends at %d, %d was acknowledged", s.Last, acked)
		}
	})
}

// TestFileCutWhileOpen: an entry that was cut off the file cannot be read, and that only fails the
// log.
func TestFileCutWhileOpen(t *testing.T) {
	d := lock(t, disktest.MemDir(t))
	l := openTestLog(t, d, true)
	must(t, l.StoreLogs(disktest.Entries(1, 100, 1, 5000)))
	must(t, l.Close())
	failed := make(chan error, 1)
	l, err := d.OpenLog(LogOptions{Failed: func(err error) { failed <- err }})
	must(t, err)
	for _, s := range []string{"raft-0000000000000001.log", "raft-0000000000000002.log"} {
		// upkeep removes the first one, which has no entry
		if err := os.Truncate(filepath.Join(d.path, s), 8192); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	err = l.Run(func() error { return l.GetLog(50, new(raft.Log)) })
	if !errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "read entry 50") {
		t.Errorf("an entry was read from a file that is gone: %v", err)
	}
	select {
	case <-failed:
	case <-time.After(time.Minute):
		t.Error("Failed was not called")
	}
	must(t, l.Close())
}
