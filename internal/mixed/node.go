//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	readyTime = 3 * time.Minute // for a node that has just started, on a machine that is busy
	endTime   = 2 * time.Minute // for a node that shuts down
	lookPause = 100 * time.Millisecond
)

// node is a node of a cluster, whose process may be of the one release or the other. One goroutine
// starts and ends it.
type node struct {
	settings
	addrs struct{ https, health string }
	log   *os.File
	fail  func(format string, args ...any) // notes that something must not have happened

	cmd     *exec.Cmd
	in      *os.File
	exited  chan struct{} // closed when the process has ended
	present bool          // it runs the present program

	mu       sync.Mutex
	expected bool // the process is to end
	refused  bool // the node is to be refused
}

// settings is what the program reads from its standard input.
type settings struct {
	Name, Dir, Secret         string
	Peers                     []string
	Addr, HTTPS, HTTP, Health string
	Domain                    string
}

// start starts the node with a program.
func (n *node) start(p programs, present bool) error {
	file := p.previous
	if present {
		file = p.present
	}
	in, to, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	cmd := exec.Command(file)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, n.log, n.log
	if err := cmd.Start(); err != nil {
		return errors.Join(err, to.Close())
	}
	n.cmd, n.in, n.present = cmd, to, present
	n.expect(false)
	exited := make(chan struct{})
	n.exited = exited
	go func() {
		err := cmd.Wait()
		if !n.isExpected() {
			n.fail("%s has ended by itself: %v", n.Name, err)
		}
		close(exited)
	}()
	return json.NewEncoder(to).Encode(n.settings)
}

func (n *node) expect(end bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expected = end
}

func (n *node) isExpected() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.expected
}

// refuse says whether the cluster is to refuse the node.
func (n *node) refuse(refused bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refused = refused
}

func (n *node) isRefused() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.refused
}

// kill ends the process at once.
func (n *node) kill() {
	if n.cmd == nil {
		return
	}
	n.expect(true)
	n.cmd.Process.Kill()
	<-n.exited
	n.in.Close()
	n.cmd = nil
}

// stop has the process hand over and end.
func (n *node) stop() {
	n.expect(true)
	n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.exited:
		if code := n.cmd.ProcessState.ExitCode(); code != 0 {
			n.fail("%s was asked to end, and has exited with %d", n.Name, code)
		}
	case <-time.After(endTime):
		n.fail("%s was asked to end, and has not after %v", n.Name, endTime)
	}
	n.kill()
}

// freeze stops the process with SIGSTOP for a time.
func (n *node) freeze(ctx context.Context, d time.Duration) {
	n.cmd.Process.Signal(syscall.SIGSTOP)
	pause(ctx, d)
	n.cmd.Process.Signal(syscall.SIGCONT)
}

// status is what the node says of itself, as far as both releases say it.
type status struct {
	Name    string
	Ready   bool
	Err     string
	Retries bool
	Version uint64
	Members []struct {
		Name     string
		Present  bool
		Supports uint64
	}
}

// look asks the node for its status.
func (n *node) look(ctx context.Context) (s status, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.addrs.health+"/status", nil)
	if err != nil {
		return s, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// await waits until ok is true of the node's status.
func (n *node) await(ctx context.Context, what string, ok func(status) bool) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	var last status
	for {
		s, err := n.look(ctx)
		if err == nil && ok(s) {
			return nil
		}
		if err == nil {
			last = s
		}
		if !pause(ctx, lookPause) {
			return fmt.Errorf("%s is not %s after %v: it says %+v, %v", n.Name, what, readyTime, last, err)
		}
	}
}

// openLog opens the log of a node for appending.
func openLog(dir, name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// pause waits. It returns false if ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
