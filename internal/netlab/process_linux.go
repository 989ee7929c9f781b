package netlab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a program that was started in a host.
type Process struct {
	host *Host
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
	err  error // of Wait, once done is closed
}

// Start starts a program in the host. It and all that descend from it count as the host's, and die with it. What it prints is kept for
// [Process.Output] unless cmd says where it goes.
//
// The program shares the machine with the lab but for its network: files, and the list of processes too. Its /sys shows the machine's
// interfaces, not the host's.
func (h *Host) Start(cmd *exec.Cmd) (*Process, error) {
	fd, err := unix.MemfdCreate("netlab", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	p := &Process{host: h, cmd: cmd, log: os.NewFile(uintptr(fd), "output"), done: make(chan struct{})}
	// Files, not pipes: nobody has to copy, and Wait does not wait for descendants that hold them.
	if cmd.Stdout == nil {
		cmd.Stdout = p.log
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.log
	}
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = time.Second
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true // nobody's terminal, and a group of its own for signals
	if err := h.Do(func() error { return h.launch(cmd) }); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", h.Name, err), p.log.Close())
	}
	if s, ok := h.group.(*signalled); ok {
		s.started(cmd.Process.Pid)
	}
	h.mu.Lock()
	h.processes = append(h.processes, p)
	h.mu.Unlock()
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// launch starts cmd from a thread in the host's namespace.
func (h *Host) launch(cmd *exec.Cmd) error {
	group, leave, err := h.group.enter()
	if err != nil {
		return err
	}
	if group >= 0 {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, group
	}
	err = cmd.Start()
	return errors.Join(err, leave())
}

// PID returns the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended. Its descendants may still run.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process, and returns how it ended as [exec.Cmd.Wait] does.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Kill sends a signal to the process, not to its descendants.
func (p *Process) Kill(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Output returns what the process has printed so far.
func (p *Process) Output() string {
	var out bytes.Buffer
	buf := make([]byte, 64<<10)
	for {
		n, err := p.log.ReadAt(buf, int64(out.Len()))
		out.Write(buf[:n])
		if err != nil {
			return out.String()
		}
	}
}

// Running describes a process that runs in a host: one that was started, or a descendant of one.
type Running struct {
	// PID is its number.
	PID int
	// Parent is its parent's number.
	Parent int
	// Name is the name of the program, at most 15 bytes of it.
	Name string
	// Args are its arguments, the first being the program.
	Args []string
}

// Processes returns the processes that run in the host.
func (h *Host) Processes() ([]Running, error) {
	pids, err := h.group.pids()
	if err != nil {
		return nil, err
	}
	table, err := processTable()
	if err != nil {
		return nil, err
	}
	var all []Running
	for _, pid := range pids {
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || table[pid].state == 'Z' {
			continue // it has just ended
		}
		all = append(all, Running{
			PID:    pid,
			Parent: table[pid].parent,
			Name:   table[pid].name,
			Args:   strings.Split(strings.TrimRight(string(args), "\x00"), "\x00"),
		})
	}
	return all, nil
}

// Kill sends a signal to those of the host's processes that which chooses, or to all if it is nil, and returns how many they were.
func (h *Host) Kill(sig syscall.Signal, which func(Running) bool) (int, error) {
	all, err := h.Processes()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, r := range all {
		if which != nil && !which(r) {
			continue
		}
		if err := unix.Kill(r.PID, sig); err == nil {
			n++
		} else if err != unix.ESRCH {
			return n, fmt.Errorf("%s: signal %d to %d: %w", h.Name, sig, r.PID, err)
		}
	}
	return n, nil
}

// Freeze makes all processes of the host stand still, as a paused container's do: at once, and without them noticing, as long as
// [Lab.Freezer] is a control group. Its kernel goes on: addresses stay, and ARP is answered.
func (h *Host) Freeze() error { return h.group.freeze(true) }

// Thaw lets the processes of the host go on.
func (h *Host) Thaw() error { return h.group.freeze(false) }

// Freezer says what freezes hosts here.
func (l *Lab) Freezer() Freezer { return l.groups.freezer }

// entry is what /proc says of a process.
type entry struct {
	pid, parent, session int
	state                byte
	name                 string
}

func processTable() (map[int]entry, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	table := make(map[int]entry)
	for _, dir := range dirs {
		pid, err := strconv.Atoi(dir.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has just ended
		}
		open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		fields := strings.Fields(string(stat[end+1:]))
		if open < 0 || len(fields) < 4 {
			return nil, fmt.Errorf("/proc/%d/stat is not understood", pid)
		}
		parent, err1 := strconv.Atoi(fields[1])
		session, err2 := strconv.Atoi(fields[3])
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		table[pid] = entry{pid, parent, session, fields[0][0], string(stat[open+1 : end])}
	}
	return table, nil
}
