package netlab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Freezer is what makes the processes of a host stand still.
type Freezer int

const (
	// CgroupV2 is the freezer of the unified hierarchy of control groups.
	CgroupV2 Freezer = iota + 1
	// CgroupV1 is the freezer as a hierarchy of its own.
	CgroupV1
	// Signals is SIGSTOP to one process after another, which they notice and which is not at one instant. It also loses track of
	// processes that leave their session and outlive their parent. It is there for machines without control groups.
	Signals
)

// String returns its name.
func (f Freezer) String() string {
	return [...]string{"none", "cgroup v2", "cgroup v1", "signals"}[f]
}

// group tracks the processes of one host.
type group interface {
	// enter has what the calling thread starts be born in the group, until leave is called. Either fd is a directory for
	// clone3, or the thread itself has moved.
	enter() (fd int, leave func() error, err error)
	freeze(on bool) error
	pids() ([]int, error)
	// remove kills all and returns when they are gone.
	remove() error
}

// groups makes them.
type groups struct {
	freezer Freezer
	root    string // of the hierarchy
	prefix  string // of the names of this lab
}

// newGroups finds the hierarchy, and removes groups of processes that are no more.
func newGroups(freezer Freezer) (*groups, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	g := &groups{freezer: Signals}
	for _, kind := range []Freezer{CgroupV2, CgroupV1} {
		if freezer != 0 && freezer != kind {
			continue
		}
		if root := hierarchy(string(mounts), kind); root != "" && unix.Access(root, unix.W_OK) == nil {
			g.freezer, g.root = kind, root
			break
		}
	}
	if freezer != 0 && freezer != g.freezer {
		return nil, fmt.Errorf("%w: %s", errNoFreezer, freezer)
	}
	return g, g.begin()
}

// errNoFreezer says that a machine does not have what a test asks for.
var errNoFreezer = errors.New("this machine has no such freezer")

// begin names this lab's groups after this process: its number and when it started, since numbers are used again.
func (g *groups) begin() error {
	started, err := startOf(os.Getpid())
	if err != nil {
		return err
	}
	g.prefix = fmt.Sprintf("netlab-%d-%s-%d-", os.Getpid(), started, time.Now().UnixNano())
	if g.freezer == Signals {
		return nil
	}
	return g.sweep()
}

// hierarchy returns where a hierarchy is mounted.
func hierarchy(mountinfo string, kind Freezer) string {
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		v1 := right[0] == "cgroup" && slices.Contains(strings.Split(right[2], ","), "freezer")
		if kind == CgroupV2 && right[0] == "cgroup2" || kind == CgroupV1 && v1 {
			return left[4]
		}
	}
	return ""
}

// sweep removes the groups of labs whose process was killed, with all that runs in them.
func (g *groups) sweep() error {
	dirs, err := filepath.Glob(filepath.Join(g.root, "netlab-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		parts := strings.Split(filepath.Base(dir), "-")
		if len(parts) < 3 {
			continue
		}
		pid, err := strconv.Atoi(parts[1])
		if err != nil {
			continue
		}
		if started, err := startOf(pid); err == nil && started == parts[2] {
			continue
		}
		errs = append(errs, (&cgroup{groups: g, dir: dir}).remove())
	}
	return errors.Join(errs...)
}

func (g *groups) add(name string) (group, error) {
	if g.freezer == Signals {
		return &signalled{}, nil
	}
	dir := filepath.Join(g.root, g.prefix+name)
	return &cgroup{groups: g, dir: dir}, os.Mkdir(dir, 0o755)
}

// startOf returns when a process started, in ticks since boot.
func startOf(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	return string(fields[19]), nil
}

// cgroup is a control group of either version.
type cgroup struct {
	groups *groups
	dir    string
}

func (c *cgroup) write(file, value string) error {
	return os.WriteFile(filepath.Join(c.dir, file), []byte(value), 0)
}

func (c *cgroup) enter() (int, func() error, error) {
	if c.groups.freezer == CgroupV2 {
		fd, err := unix.Open(c.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return fd, func() error { return unix.Close(fd) }, err
	}
	// Version 1 moves threads, and children are born where their parent's thread is.
	home, err := ownGroup()
	if err != nil {
		return -1, nil, err
	}
	move := func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "tasks"), []byte(strconv.Itoa(unix.Gettid())), 0)
	}
	return -1, func() error { return move(filepath.Join(c.groups.root, home)) }, move(c.dir)
}

// ownGroup returns the group of the calling thread in the freezer's hierarchy of version 1.
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

// freeze returns when all stand still.
func (c *cgroup) freeze(on bool) error {
	file, value, ask, want := "freezer.state", "THAWED", "freezer.state", "THAWED\n"
	switch {
	case c.groups.freezer == CgroupV2 && on:
		file, value, ask, want = "cgroup.freeze", "1", "cgroup.events", "frozen 1\n"
	case c.groups.freezer == CgroupV2:
		file, value, ask, want = "cgroup.freeze", "0", "cgroup.events", "frozen 0\n"
	case on:
		value, want = "FROZEN", "FROZEN\n"
	}
	if err := c.write(file, value); err != nil {
		return err
	}
	var err error
	done := poll(5*time.Second, func() bool {
		var state []byte
		state, err = os.ReadFile(filepath.Join(c.dir, ask))
		return err != nil || bytes.Contains(state, []byte(want))
	})
	if !done {
		return fmt.Errorf("%s does not become %s", c.dir, value)
	}
	return err
}

func (c *cgroup) pids() ([]int, error) {
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

func (c *cgroup) remove() error {
	if _, err := os.Stat(c.dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var err error
	gone := poll(10*time.Second, func() bool {
		pids, _ := c.pids()
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL)
		}
		if c.groups.freezer == CgroupV1 {
			c.write("freezer.state", "THAWED") // the frozen cannot die
		}
		err = unix.Rmdir(c.dir)
		return err == nil
	})
	if !gone {
		return fmt.Errorf("remove %s: %w", c.dir, err)
	}
	return nil
}

// signalled does what can be done without control groups: it knows descendants by their sessions and parents.
type signalled struct {
	mu      sync.Mutex
	leaders []int // what was started here
}

func (s *signalled) enter() (int, func() error, error) { return -1, func() error { return nil }, nil }

func (s *signalled) started(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaders = append(s.leaders, pid)
}

func (s *signalled) pids() ([]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	table, err := processTable()
	if err != nil {
		return nil, err
	}
	in := make(map[int]bool)
	for grown := true; grown; {
		grown = false
		for _, p := range table {
			if !in[p.pid] && p.state != 'Z' && (in[p.parent] || slices.Contains(s.leaders, p.pid) || slices.Contains(s.leaders, p.session)) {
				in[p.pid], grown = true, true
			}
		}
	}
	var pids []int
	for pid := range in {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids, nil
}

func (s *signalled) freeze(on bool) error {
	sig := unix.SIGCONT
	if on {
		sig = unix.SIGSTOP
	}
	pids, err := s.pids()
	for _, pid := range pids {
		if kill := unix.Kill(pid, sig); kill != nil && kill != unix.ESRCH {
			err = errors.Join(err, kill)
		}
	}
	return err
}

func (s *signalled) remove() error {
	left := []int{}
	gone := poll(10*time.Second, func() bool {
		left, _ = s.pids()
		for _, pid := range left {
			unix.Kill(pid, unix.SIGKILL)
		}
		return len(left) == 0
	})
	if !gone {
		return fmt.Errorf("processes %v do not die", left)
	}
	return nil
}
