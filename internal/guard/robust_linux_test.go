package guard

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sharedPage maps the page of a program.
func sharedPage(t *testing.T, pid int) *page {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if target, _ := os.Readlink(name); !strings.HasPrefix(target, "/memfd:flotilla-guard") {
			continue
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p, err := mapPage(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.unmap() })
		return p
	}
	t.Fatal("the program has no page")
	return nil
}

// The kernel reports the death of the thread that owns the futex when the program dies, and not
// before. From then on all threads of the program are exiting.
func TestOwnerDeath(t *testing.T) {
	h := newHost(t, true)
	p := sharedPage(t, h.cmd.Process.Pid)
	word := p.robust.word.Load()
	if word == 0 {
		t.Skip("robust futexes are not permitted here")
	}
	pid := h.cmd.Process.Pid
	if word&futexOwnerDied != 0 || exiting(pid) {
		t.Error("a program that runs is called dying")
	}
	h.kill(unix.SIGKILL)
	awaitExit(t, pid) // it is a zombie then
	if !exiting(pid) {
		t.Error("a program that has been killed is not called dying")
	}
	if word := p.robust.word.Load(); word&futexOwnerDied == 0 {
		t.Errorf("the futex is %#x", word)
	}
	fd := p.robust.observe()
	defer unix.Close(fd)
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 30_000); n != 1 {
		t.Errorf("the owner's death is not observed: %v", err)
	}
	h.ended()
}

// An owner that is stopped leaves nothing behind.
func TestOwnerStopped(t *testing.T) {
	p, f, err := newPage()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	defer p.unmap()
	stop := p.robust.own()
	if p.robust.word.Load() == 0 {
		t.Skip("robust futexes are not permitted here")
	}
	stop()
	if word := p.robust.word.Load(); word != 0 {
		t.Errorf("the futex is %#x", word)
	}
}
