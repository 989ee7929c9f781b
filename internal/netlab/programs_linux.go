package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/netlab/freezer"
	"github.com/flotilla-ha/flotilla/internal/netlab/namespace"
)

// programs starts the programs of one host and remembers them.
type programs struct {
	host  string
	ns    *namespace.Namespace
	group freezer.Group

	mu  sync.Mutex
	all []*Process
}

func newPrograms(host string, ns *namespace.Namespace, group freezer.Group) *programs {
	return &programs{host: host, ns: ns, group: group}
}

func (p *programs) start(cmd *exec.Cmd) (*Process, error) {
	fd, err := unix.MemfdCreate("netlab", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	log := os.NewFile(uintptr(fd), "output")
	// Files, not pipes: nothing has to be copied, and Wait does not wait for descendants that hold
	// them.
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	if cmd.Stderr == nil {
		cmd.Stderr = log
	}
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = time.Second
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true // no terminal, and a process group of its own for signals
	if err := p.ns.Do(func() error { return p.group.Start(cmd) }); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", p.host, err), log.Close())
	}
	started := newProcess(cmd, log)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, started)
	return started, nil
}

// close kills all processes and waits for them.
func (p *programs) close() error {
	errs := []error{p.group.Remove()}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, started := range p.all {
		<-started.done
		errs = append(errs, started.log.Close())
	}
	return errors.Join(errs...)
}
