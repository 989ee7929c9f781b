package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla"
)

// stopTimeout bounds how long a node may take to end after SIGTERM: its own patience is 10 s.
const stopTimeout = 12 * time.Second

// member is one node as its parent sees it: a process that comes and goes, with a directory and ports that stay.
type member struct {
	settings settings
	log      *tail
	client   *http.Client // for the health port

	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	exited chan struct{} // closed when the process is gone
}

func (m *member) name() string { return m.settings.Name }

// start starts the process. The port that it had before must still be free: a listener on it now would be somebody else's.
func (m *member) start() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	line, err := json.Marshal(m.settings)
	if err != nil {
		return err
	}
	m.cmd = exec.Command(exe)
	m.cmd.Env = append(os.Environ(), nodeEnv+"=1")
	m.cmd.SysProcAttr = procAttr()
	m.cmd.Stderr = m.log
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	m.out = bufio.NewReader(out)
	if err := m.cmd.Start(); err != nil {
		return fmt.Errorf("node %s: %w", m.name(), err)
	}
	m.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		cmd.Wait() // the status is in cmd.ProcessState afterwards
		close(exited)
	}(m.cmd, m.exited)
	_, err = m.in.Write(append(line, '\n'))
	return err
}

// running reports whether the process has been started and has not ended.
func (m *member) running() bool {
	if m.exited == nil {
		return false
	}
	select {
	case <-m.exited:
		return false
	default:
		return true
	}
}

// kill ends the process the hard way, and returns when it is gone.
func (m *member) kill() {
	if m.running() {
		m.cmd.Process.Kill()
		<-m.exited
	}
}

// terminate asks the process to end, and returns when it has, with status 0, or with an error.
func (m *member) terminate(ctx context.Context) error {
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("node %s: %w", m.name(), err)
	}
	select {
	case <-m.exited:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(stopTimeout):
		return fmt.Errorf("node %s did not end within %s of SIGTERM%s", m.name(), stopTimeout, m.log.last())
	}
	if !m.cmd.ProcessState.Success() {
		return fmt.Errorf("node %s did not end well after SIGTERM: %s%s", m.name(), m.cmd.ProcessState, m.log.last())
	}
	return nil
}

// get asks the node's health port for path.
func (m *member) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+local(m.settings.Ports.Health)+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := m.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s says %s", path, resp.Status)
	}
	return body, err
}

// ready is nil if the node says that it is ready.
func (m *member) ready(ctx context.Context) error {
	_, err := m.get(ctx, "/readyz")
	return err
}

// status returns what the node says about itself and its cluster.
func (m *member) status(ctx context.Context) (flotilla.Status, error) {
	var s flotilla.Status
	body, err := m.get(ctx, "/status")
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}

// keys asks the node, through its pipe, for the private keys in storage.
func (m *member) keys() (map[string]string, error) {
	if _, err := io.WriteString(m.in, "keys\n"); err != nil {
		return nil, err
	}
	line, err := m.out.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	var a keysAnswer
	if err := json.Unmarshal(line, &a); err != nil {
		return nil, err
	}
	if a.Err != "" {
		return nil, errors.New(a.Err)
	}
	return a.Keys, nil
}

// fleet is the three nodes.
type fleet struct {
	members []*member
	secret  flotilla.Secret
}

// newFleet prepares nodes with these names and their directories under dir. It starts none.
func newFleet(dir string, logTo func(name string) io.Writer, names ...string) (*fleet, error) {
	all, err := freePorts(4 * len(names))
	if err != nil {
		return nil, err
	}
	f := &fleet{secret: flotilla.NewSecret()}
	peers := make([]string, len(names))
	for i := range names {
		peers[i] = local(all[4*i])
	}
	for i, name := range names {
		m := &member{
			settings: settings{
				Name: name, Dir: filepath.Join(dir, name), Secret: f.secret.Encode(), Peers: peers,
				Ports: ports{Cluster: all[4*i], TLS: all[4*i+1], HTTP: all[4*i+2], Health: all[4*i+3]},
			},
			log:    &tail{to: logTo(name)},
			client: &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		}
		f.members = append(f.members, m)
	}
	return f, nil
}

// close kills every process.
func (f *fleet) close() {
	for _, m := range f.members {
		m.kill()
	}
}

// addrs returns the address of each node's port that pick picks.
func (f *fleet) addrs(pick func(ports) int) []string {
	var addrs []string
	for _, m := range f.members {
		addrs = append(addrs, local(pick(m.settings.Ports)))
	}
	return addrs
}

// The nodes' ports are taken from this range. It lies below those that the common systems pick from for whoever asks for any port, so
// that nobody is given a node's port while it is down.
const firstPort, lastPort = 20000, 29999

// freePorts returns n TCP ports of 127.0.0.1 that nobody listens on, at random. Somebody else may take one before it is used: the
// node says so then, and the show ends. They cannot be kept taken, because a node's ports must refuse while it is down.
func freePorts(n int) ([]int, error) {
	free := make([]int, 0, n)
	for _, i := range rand.Perm(lastPort - firstPort + 1) {
		if len(free) == n {
			return free, nil
		}
		ln, err := net.Listen("tcp", local(firstPort+i))
		if err != nil {
			continue
		}
		ln.Close()
		free = append(free, firstPort+i)
	}
	return nil, fmt.Errorf("fewer than %d of the ports %d to %d of 127.0.0.1 are free", n, firstPort, lastPort)
}
