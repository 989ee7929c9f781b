package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Config describes a process.
type Config struct {
	// Name is the name of the node, for errors.
	Name string
	// Variable is the environment variable that tells the program to be a node. Its value is 1.
	Variable string
	// OnLine is called with each line that the process prints on its standard output. One goroutine
	// calls it for one run of the process. Nil ignores the output.
	OnLine func(line []byte)
	// LogTo also gets the lines that the process logs on its standard error; nil: nothing does.
	LogTo io.Writer
	// Attr are attributes of the process for the kernel; nil: none.
	Attr *syscall.SysProcAttr
}

// Process is a process that can be started again after its end. One goroutine starts and ends it.
// Any may call the other methods.
type Process struct {
	config Config
	log    *Log

	mu     sync.Mutex
	cmd    *exec.Cmd // of the last start; nil: none
	in     io.WriteCloser
	exited chan struct{} // closed when the process is gone and its output was read
}

// New returns a process that was not started.
func New(c Config) *Process { return &Process{config: c, log: NewLog(c.LogTo)} }

// Name returns the name of the node.
func (p *Process) Name() string { return p.config.Name }

// Log returns what the process has logged in all its runs.
func (p *Process) Log() *Log { return p.log }

// Start starts the process and sends it its settings as JSON. It does not wait for the node.
func (p *Process) Start(settings any) error {
	if err := p.start(settings); err != nil {
		return fmt.Errorf("start node %s: %w", p.config.Name, err)
	}
	return nil
}

func (p *Process) start(settings any) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	line, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), p.config.Variable+"=1")
	cmd.SysProcAttr = p.config.Attr
	cmd.Stderr = p.log
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.in, p.exited = cmd, in, exited
	p.mu.Unlock()
	go func() {
		defer close(exited)
		p.read(out)
		cmd.Wait() // its result is in cmd.ProcessState
	}()
	return p.Send(line)
}

// read reads the output of one run to its end.
func (p *Process) read(out io.Reader) {
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		if p.config.OnLine != nil {
			p.config.OnLine(line)
		}
	}
}

// Send writes a line to the standard input of the process.
func (p *Process) Send(line []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.in == nil {
		return errors.New("the process was not started")
	}
	_, err := p.in.Write(append(line, '\n'))
	return err
}

// Exited is closed when the process has ended and all its output was read. It is nil before the
// first start.
func (p *Process) Exited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exited
}

// Running returns true if the process was started and has not ended.
func (p *Process) Running() bool {
	exited := p.Exited()
	select {
	case <-exited:
		return false
	default:
		return exited != nil
	}
}

// PID returns the number of the process of the last start; 0 before the first.
func (p *Process) PID() int {
	if cmd := p.command(); cmd != nil {
		return cmd.Process.Pid
	}
	return 0
}

func (p *Process) command() *exec.Cmd {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd
}

// Ended describes how the process has ended. Call it only after that.
func (p *Process) Ended() string { return p.command().ProcessState.String() }

// Signal sends a signal to the process.
func (p *Process) Signal(s os.Signal) error {
	if err := p.command().Process.Signal(s); err != nil {
		return fmt.Errorf("signal node %s: %w", p.config.Name, err)
	}
	return nil
}

// Kill kills the process, and returns when it is gone. It does nothing if the process does not run.
func (p *Process) Kill() {
	if p.Running() {
		p.command().Process.Kill()
		<-p.Exited()
	}
}

// AwaitExit waits until the process has ended with status 0. Otherwise its error says how it ended,
// or that it did not end within the limit.
func (p *Process) AwaitExit(ctx context.Context, limit time.Duration) error {
	select {
	case <-p.Exited():
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(limit):
		return fmt.Errorf("node %s did not end within %s", p.config.Name, limit)
	}
	if state := p.command().ProcessState; !state.Success() {
		return fmt.Errorf("node %s ended badly: %s", p.config.Name, state)
	}
	return nil
}
