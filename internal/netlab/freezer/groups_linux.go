package freezer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Groups makes the groups of one owner.
type Groups struct {
	kind   Kind
	root   string // of the hierarchy
	prefix string // of the names of the groups
}

// New finds a mechanism; kind 0 is the best that there is. It removes the groups of dead processes.
func New(kind Kind) (*Groups, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	g := &Groups{kind: Signals}
	for _, k := range []Kind{CgroupV2, CgroupV1} {
		if kind != 0 && kind != k {
			continue
		}
		if root := hierarchy(string(mounts), k); root != "" && unix.Access(root, unix.W_OK) == nil {
			g.kind, g.root = k, root
			break
		}
	}
	if kind != 0 && kind != g.kind {
		return nil, fmt.Errorf("%w: %s", ErrUnavailable, kind)
	}
	// The names contain the number of this process and its start, since numbers are used again.
	started, err := startOf(os.Getpid())
	if err != nil {
		return nil, err
	}
	g.prefix = fmt.Sprintf("netlab-%d-%s-%d-", os.Getpid(), started, time.Now().UnixNano())
	if g.kind == Signals {
		return g, nil
	}
	return g, g.sweep()
}

// Add makes an empty group.
func (g *Groups) Add(name string) (Group, error) {
	if g.kind == Signals {
		return &signalled{}, nil
	}
	c := g.cgroup(g.prefix + name)
	return c, os.Mkdir(c.dir, 0o755)
}

func (g *Groups) cgroup(name string) *cgroup {
	return &cgroup{kind: g.kind, root: g.root, dir: filepath.Join(g.root, name)}
}

// Left returns the directories of this owner's groups that still exist.
func (g *Groups) Left() ([]string, error) {
	if g.root == "" {
		return nil, nil
	}
	return filepath.Glob(filepath.Join(g.root, g.prefix+"*"))
}

// hierarchy returns where a hierarchy is mounted.
func hierarchy(mountinfo string, kind Kind) string {
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

// sweep removes the groups of dead processes, with everything that runs in them.
func (g *Groups) sweep() error {
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
		errs = append(errs, g.cgroup(filepath.Base(dir)).Remove())
	}
	return errors.Join(errs...)
}
