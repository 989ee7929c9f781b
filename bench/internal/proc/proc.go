//go:build unix

// Package proc runs nodes as processes on loopback. A node is the running program once more: an
// environment variable tells it so.
package proc

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/freeport"
)

// RoleVariable is the environment variable that tells a process its role. A program that starts
// processes reads it first.
const RoleVariable = "BENCH_ROLE"

// Process is the process of a node, which can be started and ended many times. One goroutine at a
// time uses it.
type Process struct {
	Dir  string   // of the node
	Env  []string // its environment
	Nice bool     // it only gets processor time that others do not want
	Log  *os.File // its standard error; nil: that of this process

	Cmd *exec.Cmd // nil while it does not run
	In  *os.File  // its standard input; a node ends when that does
	Out *bufio.Scanner
}

// NewCluster prepares n nodes that will form a cluster, with directories in dir, and starts none.
// The addresses are in the order of the nodes.
func NewCluster(n int, dir string) (nodes []*Process, addrs []string, err error) {
	if addrs, err = freeport.Addrs(n); err != nil {
		return nil, nil, err
	}
	secret := flotilla.NewSecret().Encode()
	for i, addr := range addrs {
		p := &Process{Dir: filepath.Join(dir, fmt.Sprint(i))}
		p.Env = append(os.Environ(),
			RoleVariable+"=node",
			"FLOTILLA_DIR="+p.Dir,
			"FLOTILLA_ADDR="+addr,
			fmt.Sprintf("FLOTILLA_NAME=n%d", i),
			"FLOTILLA_SECRETS="+secret,
			"FLOTILLA_PEERS="+strings.Join(addrs, ","),
			fmt.Sprintf("FLOTILLA_EXPECT=%d", n))
		nodes = append(nodes, p)
	}
	return nodes, addrs, nil
}

// Start starts the process.
func (p *Process) Start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer inR.Close()
	cmd := exec.Command(self)
	if p.Nice {
		cmd = exec.Command("nice", "-n", "19", self)
	}
	cmd.Env, cmd.Stdin, cmd.Stderr = p.Env, inR, os.Stderr
	if p.Log != nil {
		cmd.Stderr = p.Log
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		inW.Close()
		return err
	}
	p.Cmd, p.In, p.Out = cmd, inW, bufio.NewScanner(out)
	p.Out.Buffer(nil, 1<<20)
	return nil
}

// Kill kills the process and waits for its end.
func (p *Process) Kill() {
	if p.Cmd == nil {
		return
	}
	p.Cmd.Process.Kill()
	p.Wait()
}

// Wait waits for the end of the process.
func (p *Process) Wait() error {
	err := p.Cmd.Wait()
	p.In.Close()
	p.Cmd = nil
	return err
}

// Ask sends a line to the process and returns its answer.
func (p *Process) Ask(line string) (string, error) {
	if _, err := fmt.Fprintln(p.In, line); err != nil {
		return "", err
	}
	if !p.Out.Scan() {
		return "", fmt.Errorf("%s: the process does not answer (%v)", line, p.Out.Err())
	}
	if e, bad := strings.CutPrefix(p.Out.Text(), "error "); bad {
		return "", fmt.Errorf("%s: %s", line, e)
	}
	return p.Out.Text(), nil
}
