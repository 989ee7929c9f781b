package freezer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/netlab/poll"
)

// cgroup is a control group of either version.
type cgroup struct {
	kind Kind
	root string // of the hierarchy
	dir  string
}

func (c *cgroup) write(file, value string) error {
	return os.WriteFile(filepath.Join(c.dir, file), []byte(value), 0)
}

func (c *cgroup) Start(cmd *exec.Cmd) (err error) {
	if c.kind == CgroupV2 {
		fd, err := unix.Open(c.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if cmd.SysProcAttr == nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, fd
		return errors.Join(cmd.Start(), unix.Close(fd))
	}
	// Version 1 moves threads. A child starts in the group of its parent's thread.
	home, err := ownGroup()
	if err != nil {
		return err
	}
	move := func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "tasks"), []byte(strconv.Itoa(unix.Gettid())), 0)
	}
	if err := move(c.dir); err != nil {
		return err
	}
	return errors.Join(cmd.Start(), move(filepath.Join(c.root, home)))
}

// ownGroup returns the group of the calling thread in the freezer hierarchy of version 1.
func ownGroup() (string, error) {
	content, err := os.ReadFile("/proc/thread-self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(content)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && slices.Contains(strings.Split(parts[1], ","), "freezer") {
			return parts[2], nil
		}
	}
	return "", errors.New("this process is in no group of the freezer")
}

func (c *cgroup) Freeze() error {
	if c.kind == CgroupV2 {
		return c.set("cgroup.freeze", "1", "cgroup.events", "frozen 1\n")
	}
	return c.set("freezer.state", "FROZEN", "freezer.state", "FROZEN\n")
}

func (c *cgroup) Thaw() error {
	if c.kind == CgroupV2 {
		return c.set("cgroup.freeze", "0", "cgroup.events", "frozen 0\n")
	}
	return c.set("freezer.state", "THAWED", "freezer.state", "THAWED\n")
}

// set writes a value to a file of the group, and waits until another file confirms it.
func (c *cgroup) set(file, value, confirmedBy, want string) error {
	if err := c.write(file, value); err != nil {
		return err
	}
	var err error
	done := poll.Until(5*time.Second, func() bool {
		var state []byte
		state, err = os.ReadFile(filepath.Join(c.dir, confirmedBy))
		return err != nil || bytes.Contains(state, []byte(want))
	})
	if !done {
		return fmt.Errorf("%s of %s does not become %s", file, c.dir, value)
	}
	return err
}

func (c *cgroup) PIDs() ([]int, error) {
	content, err := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, field := range strings.Fields(string(content)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids, nil
}

func (c *cgroup) Remove() error {
	if _, err := os.Stat(c.dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var err error
	gone := poll.Until(10*time.Second, func() bool {
		pids, _ := c.PIDs()
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL)
		}
		if c.kind == CgroupV1 {
			c.write("freezer.state", "THAWED") // a frozen process cannot die
		}
		err = unix.Rmdir(c.dir)
		return err == nil || errors.Is(err, os.ErrNotExist) // another process may sweep it too
	})
	if !gone {
		return fmt.Errorf("remove %s: %w", c.dir, err)
	}
	return nil
}
