package netlab

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
)

// Process is a program that was started in a host.
type Process struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
	err  error // of Wait, once done is closed
}

// newProcess waits for a command that was started. The command writes its output to log.
func newProcess(cmd *exec.Cmd, log *os.File) *Process {
	p := &Process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p
}

// Done is closed when the process has ended. Its descendants may still run.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process, and returns the error of [exec.Cmd.Wait].
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Kill sends a signal to the process, and not to its descendants.
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
