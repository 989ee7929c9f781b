package freezer

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// open returns groups of one kind, and skips the test where they cannot be made.
func open(t *testing.T, kind Kind) *Groups {
	t.Helper()
	if unix.Geteuid() != 0 {
		t.Skip("control groups need root")
	}
	g, err := New(kind)
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	check(t, err)
	return g
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// New removes the groups of dead processes, with the programs that run in them. The groups of
// living processes stay.
func TestSweep(t *testing.T) {
	for _, kind := range []Kind{CgroupV2, CgroupV1} {
		t.Run(strings.ReplaceAll(kind.String(), " ", "-"), func(t *testing.T) {
			g := open(t, kind)
			added, err := g.Add("own")
			check(t, err)
			defer added.Remove()

			dead := exec.Command("true")
			check(t, dead.Run())
			began, err := startOf(os.Getpid())
			check(t, err)
			stale := g.cgroup("netlab-" + strconv.Itoa(dead.Process.Pid) + "-" + began + "-1-node0")
			reused := g.cgroup("netlab-" + strconv.Itoa(os.Getpid()) + "-1-1-node0")
			check(t, os.Mkdir(reused.dir, 0o755))
			var ended chan error
			fill := func() error {
				check(t, os.Mkdir(stale.dir, 0o755))
				program := exec.Command("sleep", "1000")
				runtime.LockOSThread() // version 1 moves the thread
				err := stale.Start(program)
				runtime.UnlockOSThread()
				if err != nil {
					return err
				}
				ended = make(chan error, 1)
				go func() { ended <- program.Wait() }()
				return stale.Freeze()
			}
			// A laboratory of another process may sweep it meanwhile.
			for err = fill(); errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV); err = fill() {
			}
			check(t, err)

			open(t, kind)
			for _, dir := range []string{stale.dir, reused.dir} {
				if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is still there: %v", dir, err)
				}
			}
			select {
			case <-ended:
			case <-time.After(5 * time.Second):
				t.Error("its program still runs")
			}
			if left, err := g.Left(); len(left) != 1 || err != nil {
				t.Errorf("this process has the groups %q, %v; want one", left, err)
			}
		})
	}
}
