package netlab

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/netlab/freezer"
)

// Start starts a program in the host. The program and its descendants belong to the host, and die
// with it. [Process.Output] returns what the program prints, unless cmd sends that elsewhere.
//
// Only the network of the program is its own. It shares files and the list of processes with the
// machine. Its /sys shows the interfaces of the machine, not those of the host.
func (h *Host) Start(cmd *exec.Cmd) (*Process, error) { return h.programs.start(cmd) }

// StartReady starts a program in the host, and returns when the program has called [Ready].
func (h *Host) StartReady(cmd *exec.Cmd) (*Process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{w}
	p, err := h.Start(cmd)
	w.Close()
	if err != nil {
		return nil, err
	}
	if n, err := r.Read(make([]byte, 1)); n == 0 {
		return nil, fmt.Errorf("%s: %s is not ready (%v): %s", h.Name, cmd.Path, err, p.Output())
	}
	return p, nil
}

// Respond starts a responder with the host's name in the host, and returns when it answers. The
// program is the running one, so its TestMain must call [Main].
func (h *Host) Respond() (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return h.RespondBy(self)
}

// RespondBy is Respond with another path to the running program, such as a link to it. The kernel
// names the process after the path.
func (h *Host) RespondBy(path string) (*Process, error) {
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), respondAs+"="+h.Name)
	return h.StartReady(cmd)
}

// Running is a process that runs in a host: a program that was started, or a descendant of one.
type Running struct {
	// PID is its number.
	PID int
	// Parent is the number of its parent.
	Parent int
	// Name is the name of the program, cut off after 15 bytes.
	Name string
	// Args are its arguments. The first is the program.
	Args []string
}

// Processes returns the processes that run in the host.
func (h *Host) Processes() ([]Running, error) {
	pids, err := h.programs.group.PIDs()
	if err != nil {
		return nil, err
	}
	table, err := freezer.Table()
	if err != nil {
		return nil, err
	}
	var all []Running
	for _, pid := range pids {
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || table[pid].Zombie {
			continue // it has just ended
		}
		all = append(all, Running{
			PID:    pid,
			Parent: table[pid].Parent,
			Name:   table[pid].Name,
			Args:   strings.Split(strings.TrimRight(string(args), "\x00"), "\x00"),
		})
	}
	return all, nil
}

// Kill sends a signal to the host's processes for which the function returns true, or to all if it
// is nil. It returns their number.
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

// Freeze stops all processes of the host, as if a container was paused. If [Lab.Freezer] is a
// control group they stop at once and do not notice. The kernel of the host goes on: addresses
// stay, and ARP is answered.
func (h *Host) Freeze() error { return h.programs.group.Freeze() }

// Thaw continues the processes of the host.
func (h *Host) Thaw() error { return h.programs.group.Thaw() }
