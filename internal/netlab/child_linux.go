package netlab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

const respondAs = "NETLAB_RESPOND_AS"

// Main is for TestMain: in a process that [Host.Respond] started, it is a responder until SIGTERM and then exits; in others it does nothing.
func Main() {
	name, ok := os.LookupEnv(respondAs)
	if !ok {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := Respond(ctx, name, Ready); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Ready says to [Host.StartReady], in the process that it started, that this process is ready.
func Ready() {
	f := os.NewFile(3, "ready")
	f.Write([]byte{1})
	f.Close()
}

// Respond starts a responder in the host, under the host's name, and returns when it answers. The program is the running one, so its
// TestMain must call [Main].
func (h *Host) Respond() (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return h.RespondBy(self)
}

// RespondBy is Respond with another path to the running program, such as a link to it: the system calls the process as it calls the file.
func (h *Host) RespondBy(path string) (*Process, error) {
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), respondAs+"="+h.Name)
	return h.StartReady(cmd)
}

// StartReady starts a program in the host, and returns when it has called [Ready].
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
