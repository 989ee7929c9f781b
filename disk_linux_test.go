package flotilla

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// The disks of all three nodes are full, and there is room again: real file systems, which say so
// where they please. All are back by themselves.
func TestFullDisks(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	if os.Getuid() != 0 {
		t.Skip("needs root to mount file systems of a few MiB")
	}
	var dirs []string
	for range 3 {
		dir := t.TempDir()
		if err := unix.Mount("flotilla", dir, "tmpfs", 0, "size=4m"); err != nil {
			t.Skipf("needs the right to mount a tmpfs: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		dirs = append(dirs, dir)
	}
	synctest.Test(t, func(t *testing.T) {
		next := dirs
		nodes := trio(t, simnet.New(), func(c *Config) { c.Dir, next = filepath.Join(next[0], "data"), next[1:] })
		storeWithin(t, time.Second, nodes[0], "k", "1")
		for _, dir := range dirs {
			if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 8<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("the disk is not full: %v", err)
			}
		}
		value := bytes.Repeat([]byte("x"), 100<<10)
		acknowledged := 0
		for i := range 50 { // what bbolt has in reserve is used up
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if nodes[i%3].Storage().Store(ctx, "big", value) == nil {
				acknowledged++
			}
			cancel()
		}
		out := 0
		for _, n := range nodes {
			if n.life.Setback.Load() != nil {
				out++
				wantOut(t, n, "no space left on device", "make room in "+n.cfg.Dir)
				wantValue(t, n, "k", "1")
			}
		}
		if out < 2 {
			t.Fatalf("%d nodes have noticed that their disks are full; %d writes were acknowledged", out, acknowledged)
		}
		for _, dir := range dirs {
			mustDo(t, os.Remove(filepath.Join(dir, "ballast")))
		}
		took := eventually(t, 5*time.Second, "all are ready", func() bool {
			for _, n := range nodes {
				if !n.Status().Ready {
					return false
				}
			}
			return true
		})
		t.Logf("%d were out; all ready %v after there was room", out, took)
		wantAllToRestart(t, nodes)
	})
}

// The disk is made read-only under an idle node, which writes nothing and so would not notice by
// itself.
func TestReadOnlyUnderTheNode(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	if os.Getuid() != 0 {
		t.Skip("needs root to mount file systems")
	}
	dir := t.TempDir()
	if err := unix.Mount("flotilla", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("needs the right to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	synctest.Test(t, func(t *testing.T) {
		first := true
		nodes := trio(t, simnet.New(), func(c *Config) {
			if first {
				c.Dir, first = dir, false
			}
		})
		n := nodes[0]
		// A file system with files open for writing cannot be made read-only by hand; another one over it
		// is the same to the node.
		mustDo(t, unix.Mount("over", dir, "tmpfs", unix.MS_RDONLY, ""))
		eventually(t, 3*time.Second, "it has noticed", func() bool { return n.Status().Err != "" })
		wantOut(t, n, dir+" was replaced", "put the original back")
		time.Sleep(time.Minute)
		wantOut(t, n)
		mustDo(t, unix.Unmount(dir, 0))
		eventually(t, 5*time.Second, "it is ready", func() bool { return n.Status().Ready })

		mustDo(t, unix.Mount(dir, dir, "", unix.MS_BIND, ""))
		mustDo(t, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		eventually(t, 3*time.Second, "it has noticed", func() bool { return n.Status().Err != "" })
		wantOut(t, n, "read-only file system", "writable")
		mustDo(t, unix.Unmount(dir, 0))
		eventually(t, 5*time.Second, "it is ready", func() bool { return n.Status().Ready })
	})
}
