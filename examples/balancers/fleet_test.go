package balancers

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/examples/internal/lab"
)

const (
	domain  = "api.balancers.test" // ".test" is reserved for this: RFC 6761, section 6.2
	http01  = "http-01"
	tlsALPN = "tls-alpn-01"

	proxyIP  = "127.0.0.1" // HAProxy's, and what nodes see of nginx
	nginxIP  = "127.0.0.6"
	clientIP = "127.0.0.5"

	// patience is for one thing to happen on a machine that does much else. What is fast has no use for it.
	patience = 30 * time.Second
)

// fleet is three nodes behind balancers.
type fleet struct {
	nodes  []*member
	ports  []int // cluster, https, http, health
	ca     *lab.Authority
	roots  *x509.CertPool
	rootCA string // path of a PEM file with them
	stats  string // path of HAProxy's socket
}

// startFleet starts HAProxy, nginx unless it is not there, and three nodes, and waits until HAProxy finds all of them ready and each has a
// certificate. All ends with the test. Challenge is the only one that nodes solve; empty: any.
func startFleet(t *testing.T, challenge string) *fleet {
	t.Helper()
	need(t, "haproxy")
	if ln, err := net.Listen("tcp", lab.HostPort(lab.Loopback(0), 0)); err != nil {
		t.Skipf("loopback addresses: this system has none but 127.0.0.1: %v", err)
	} else {
		ln.Close()
	}
	ports, release, err := lab.ClaimPorts(4, 6)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	f := &fleet{ports: ports, roots: x509.NewCertPool(), rootCA: filepath.Join(t.TempDir(), "root.pem")}
	where := func(name string) net.IP {
		if name != domain {
			return nil
		}
		return net.ParseIP(proxyIP)
	}
	if f.ca, err = lab.StartAuthority(f.httpPort(), f.httpsPort(), where, io.Discard, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.ca.Close)
	f.roots.AddCert(f.ca.Root)
	if err := os.WriteFile(f.rootCA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.ca.Root.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}

	secret := flotilla.NewSecret().Encode()
	var peers []string
	for i, name := range []string{"n1", "n2", "n3"} { // as HAProxy calls them
		ip := lab.Loopback(i)
		peers = append(peers, lab.HostPort(ip, ports[0]))
		f.nodes = append(f.nodes, &member{ip: ip, settings: settings{
			Name: name, Dir: filepath.Join(t.TempDir(), name), Secret: secret, Challenge: challenge, CA: f.ca.URL, Roots: f.ca.Endpoint,
			Addr: peers[i], HTTPS: lab.HostPort(ip, ports[1]), HTTP: lab.HostPort(ip, ports[2]), Health: lab.HostPort(ip, ports[3]),
		}})
	}
	f.startHAProxy(t)
	t.Cleanup(func() {
		for _, m := range f.nodes {
			m.kill()
			if t.Failed() {
				t.Logf("node %s has said\n%s", m.settings.Name, m.log.tail())
			}
		}
	})
	for _, m := range f.nodes {
		m.settings.Peers = peers
		if err := m.start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range f.nodes {
		f.awaitServing(t, m)
	}
	f.startNginx(t)
	return f
}

func (f *fleet) httpsPort() int { return f.ports[1] }
func (f *fleet) httpPort() int  { return f.ports[2] }

// awaitServing waits until HAProxy finds m ready and m has the certificate.
func (f *fleet) awaitServing(t *testing.T, m *member) {
	t.Helper()
	f.awaitState(t, m, "UP", "L7OK")
	await(t, func(ctx context.Context) error {
		c := f.client(direct(m), "HTTP/1.1")
		defer c.CloseIdleConnections()
		_, err := ask(ctx, c, nil)
		return err
	})
}

// others returns the nodes but one.
func (f *fleet) others(but *member) []*member {
	return slices.DeleteFunc(slices.Clone(f.nodes), func(m *member) bool { return m == but })
}

// member is one node as the test sees it: a process that comes and goes, with a directory and addresses that stay.
type member struct {
	ip       net.IP
	settings settings
	log      logbook

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone
}

// start starts the process. It does not wait for the node.
func (m *member) start() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	line, err := json.Marshal(m.settings)
	if err != nil {
		return err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), nodeEnv+"=1")
	cmd.Stderr = &m.log
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	m.cmd, m.exited = cmd, make(chan struct{})
	go func(exited chan struct{}) {
		cmd.Wait()
		close(exited)
	}(m.exited)
	_, err = in.Write(append(line, '\n'))
	return err
}

// kill ends the process the hard way, and returns when it is gone.
func (m *member) kill() {
	if m.cmd != nil {
		m.cmd.Process.Kill()
		<-m.exited
	}
}

// signal sends the process a signal.
func (m *member) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// awaitEnd waits until the process has ended well.
func (m *member) awaitEnd(t *testing.T) {
	t.Helper()
	select {
	case <-m.exited:
	case <-time.After(patience):
		t.Fatalf("node %s has not ended %s after SIGTERM", m.settings.Name, patience)
	}
	if !m.cmd.ProcessState.Success() {
		t.Errorf("node %s has not ended well: %s", m.settings.Name, m.cmd.ProcessState)
	}
}

// logbook is what a process has said.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// tail returns the newest lines.
func (l *logbook) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := slices.Collect(strings.Lines(l.text.String()))
	return strings.Join(lines[max(0, len(lines)-40):], "")
}

// need skips the test if a program is not installed.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(program)
	}
}

// await calls f until it succeeds; when patience is over, it fails the test with f's error.
func await(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("nothing has been tried")
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
			last = err
		case <-ctx.Done():
			t.Fatalf("%v: %v", fmt.Errorf("within %s: %w", patience, ctx.Err()), last)
		}
	}
}
