package freezer

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/netlab/poll"
)

// signalled is a group without control groups. It finds descendants by their sessions and parents.
type signalled struct {
	mu      sync.Mutex
	leaders []int // the processes that were started in the group
}

func (s *signalled) Start(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaders = append(s.leaders, cmd.Process.Pid)
	return nil
}

func (s *signalled) PIDs() ([]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	table, err := Table()
	if err != nil {
		return nil, err
	}
	in := make(map[int]bool)
	for grown := true; grown; {
		grown = false
		for _, p := range table {
			started := slices.Contains(s.leaders, p.PID) || slices.Contains(s.leaders, p.session)
			if !in[p.PID] && !p.Zombie && (in[p.Parent] || started) {
				in[p.PID], grown = true, true
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

func (s *signalled) Freeze() error { return s.signal(unix.SIGSTOP) }

func (s *signalled) Thaw() error { return s.signal(unix.SIGCONT) }

func (s *signalled) signal(sig unix.Signal) error {
	pids, err := s.PIDs()
	for _, pid := range pids {
		if kill := unix.Kill(pid, sig); kill != nil && kill != unix.ESRCH {
			err = errors.Join(err, kill)
		}
	}
	return err
}

func (s *signalled) Remove() error {
	left := []int{}
	gone := poll.Until(10*time.Second, func() bool {
		left, _ = s.PIDs()
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
