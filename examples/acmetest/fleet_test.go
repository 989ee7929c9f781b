package acmetest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
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
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/examples/internal/lab"
)

const (
	zone    = "acme.test" // every name is in it
	home    = "home." + zone
	email   = "admin@flotilla.example"
	http01  = "http-01"
	tlsALPN = "tls-alpn-01"
	dns01   = "dns-01"

	// patience is for one thing to happen on a machine that does much else. What is fast has no use for it.
	patience = time.Minute
)

// errGone says that a node's process ended before it had answered.
var errGone = errors.New("the process is gone")

// fleet is three nodes and their authority.
type fleet struct {
	ca     *authority
	nodes  []*member
	issued sync.Map // of members
}

// options are what the fleets of the tests differ in.
type options struct {
	challenge string   // the only one that nodes solve; empty: any but DNS-01
	testCA    string   // URL of an ACME directory that must not be used
	domains   []string // served from the start; nil: home
	perNode   bool     // each node has certificates of its own
}

// newFleet prepares three nodes and their authority, and starts no node. All ends with the test.
func newFleet(t *testing.T, o options) *fleet {
	t.Helper()
	if len(o.domains) == 0 {
		o.domains = []string{home}
	}
	ports := claimPorts(t, 3)
	f := &fleet{}
	issued := func() *sync.Map {
		if o.perNode { // each has to obtain its own
			return new(sync.Map)
		}
		return &f.issued
	}
	for i, name := range []string{"ada", "bob", "cyd"} {
		ip := lab.Loopback(i)
		f.nodes = append(f.nodes, &member{ip: ip, issued: issued(), settings: settings{
			Name: name, Dir: filepath.Join(t.TempDir(), name),
			Addr: lab.HostPort(ip, ports[0]), HTTPS: lab.HostPort(ip, ports[1]), HTTP: lab.HostPort(ip, ports[2]),
			Domains: o.domains, Challenge: o.challenge, TestCA: o.testCA, PerNode: o.perNode,
		}})
	}
	f.ca = newAuthority(t, ports[2], ports[1], func(string) []net.IP { return f.listening() })
	secret := flotilla.NewSecret().Encode()
	for _, m := range f.nodes {
		m.settings.DNS = f.ca.DNS
		m.roots, m.settings.CA, m.settings.Roots, m.settings.Secret = f.ca.roots, f.ca.URL, f.ca.Endpoint, secret
		for _, p := range f.nodes {
			m.settings.Peers = append(m.settings.Peers, p.settings.Addr)
		}
	}
	t.Cleanup(func() {
		for _, m := range f.nodes {
			m.kill()
			if t.Failed() {
				t.Logf("node %s has complained of\n%s", m.settings.Name, m.log.digest())
			}
		}
	})
	return f
}

// startFleet is newFleet, started, each node serving the first of the domains.
func startFleet(t *testing.T, o options) *fleet {
	t.Helper()
	f := newFleet(t, o)
	if err := f.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

// start starts all nodes and waits until each serves the first of its domains.
func (f *fleet) start(ctx context.Context) error {
	for _, m := range f.nodes {
		if err := m.start(); err != nil {
			return err
		}
	}
	for _, m := range f.nodes {
		if _, err := m.serves(ctx, m.settings.Domains[0], nil); err != nil {
			return err
		}
	}
	return nil
}

// listening returns the addresses of the nodes that clients are sent to, by a balancer that looks at ports and nothing else.
func (f *fleet) listening() []net.IP {
	var ips []net.IP
	for _, m := range f.nodes {
		if listens(m.settings.HTTPS) && listens(m.settings.HTTP) {
			ips = append(ips, m.ip)
		}
	}
	return ips
}

func listens(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// others returns the nodes but one.
func (f *fleet) others(but *member) []*member {
	return slices.DeleteFunc(slices.Clone(f.nodes), func(m *member) bool { return m == but })
}

// without returns the addresses of the nodes but one.
func (f *fleet) without(but *member) []net.IP {
	var ips []net.IP
	for _, m := range f.others(but) {
		ips = append(ips, m.ip)
	}
	return ips
}

// member is one node as the test sees it: a process that comes and goes, with a directory and addresses that stay. One goroutine starts
// and kills it; any may ask it.
type member struct {
	ip       net.IP
	settings settings
	roots    *x509.CertPool
	issued   *sync.Map // the names that a node with the same certificates has shown one of
	log      logbook

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone and all that it said has been read

	mu      sync.Mutex
	in      io.WriteCloser
	last    int // question
	waiting map[int]chan answer
	dying   answer // the process's last word; zero: it has not said that it kills itself
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
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	m.cmd, m.exited = cmd, make(chan struct{})
	m.mu.Lock()
	m.in, m.waiting, m.dying = in, make(map[int]chan answer), answer{}
	m.mu.Unlock()
	go m.listen(cmd, bufio.NewReader(out), m.exited)
	_, err = in.Write(append(line, '\n'))
	return err
}

// listen reads what a process says, and closes exited after its end.
func (m *member) listen(cmd *exec.Cmd, out *bufio.Reader, exited chan struct{}) {
	defer close(exited)
	defer cmd.Wait()
	for {
		line, err := out.ReadBytes('\n')
		var a answer
		if err != nil || json.Unmarshal(line, &a) != nil {
			return
		}
		m.mu.Lock()
		if c := m.waiting[a.ID]; c != nil {
			delete(m.waiting, a.ID)
			c <- a
		} else if a.Dying && !m.dying.Dying {
			m.dying = a
		}
		m.mu.Unlock()
	}
}

// kill ends the process the hard way, and returns when it is gone.
func (m *member) kill() {
	if m.cmd != nil {
		m.cmd.Process.Kill()
		<-m.exited
	}
}

// lastCall returns the storage call at which the process has killed itself.
func (m *member) lastCall() (answer, error) {
	<-m.exited
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dying.Dying {
		return answer{}, fmt.Errorf("node %s has ended by itself: %s", m.settings.Name, m.cmd.ProcessState)
	}
	return m.dying, nil
}

// ask puts a question to the node and waits for the answer. It fails with errGone if there is none because the process has ended.
func (m *member) ask(ctx context.Context, q question) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience+10*time.Second) // the node's own comes first and says more
	defer cancel()
	c := make(chan answer, 1)
	m.mu.Lock()
	m.last++
	q.ID = m.last
	m.waiting[q.ID] = c
	line, err := json.Marshal(q)
	if err == nil {
		_, err = m.in.Write(append(line, '\n'))
	}
	m.mu.Unlock()
	fail := func(err error) (answer, error) {
		return answer{}, fmt.Errorf("node %s, asked to %s %s: %w", m.settings.Name, q.Ask, q.Name, err)
	}
	if err != nil {
		return fail(fmt.Errorf("%w: %w", errGone, err))
	}
	select {
	case a := <-c:
		if a.Err != "" {
			return fail(errors.New(a.Err))
		}
		return a, nil
	case <-m.exited:
		select {
		case a := <-c: // its last act
			if a.Err == "" {
				return a, nil
			}
		default:
		}
		return fail(errGone)
	case <-ctx.Done():
		return fail(ctx.Err())
	}
}

// shake makes a TLS handshake with the node, as a client of name, and returns the certificate. That a certificate is shown which
// does not hold is a hopelessError, but for a self-signed one before any node has shown another.
func (m *member) shake(ctx context.Context, name string) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: m.roots, ServerName: name}}
	conn, err := dialer.DialContext(ctx, "tcp", m.settings.HTTPS)
	if err != nil {
		err = fmt.Errorf("node %s, a handshake for %s: %w", m.settings.Name, name, err)
		if wrong := (*tls.CertificateVerificationError)(nil); errors.As(err, &wrong) {
			_, late := m.issued.Load(name)
			if late || wrong.UnverifiedCertificates[0].Subject.CommonName != "flotilla: no certificate yet" {
				err = &hopelessError{err}
			}
		}
		return nil, err
	}
	m.issued.Store(name, true)
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// serves waits until the node serves name with a certificate that want, if not nil, finds no fault with. A node that has said that a
// certificate and its key do not fit is not waited for.
func (m *member) serves(ctx context.Context, name string, want func(*x509.Certificate) error) (*x509.Certificate, error) {
	var leaf *x509.Certificate
	err := await(ctx, func(ctx context.Context) (err error) {
		leaf, err = m.shake(ctx, name)
		if err == nil && want != nil {
			err = want(leaf)
		}
		if line := m.log.unusable(name); err != nil && line != "" {
			err = &hopelessError{fmt.Errorf("%w; node %s has logged: %s", err, m.settings.Name, line)}
		}
		return err
	})
	return leaf, err
}

// serial says how a certificate differs from one with another serial number, nil if it does not.
func serial(want string) func(*x509.Certificate) error {
	return func(c *x509.Certificate) error {
		if got := c.SerialNumber.Text(16); got != want {
			return fmt.Errorf("certificate %s is served, want %s", got, want)
		}
		return nil
	}
}

// logbook is what a node has logged.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// unusable returns the first line that says of name's certificate that its key is another's.
func (l *logbook) unusable(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, name) && (strings.Contains(line, "unusable certificate") || strings.Contains(line, "does not match public key")) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// digest returns the newest of the warnings and errors, and the newest lines.
func (l *logbook) digest() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := slices.Collect(strings.Lines(l.text.String()))
	ordinary := func(line string) bool { return strings.Contains(line, "level=INFO") }
	bad := slices.DeleteFunc(slices.Clone(lines), ordinary)
	last := func(lines []string) string { return strings.Join(lines[max(0, len(lines)-20):], "") }
	return last(bad) + "and last of all\n" + last(lines)
}

// claimPorts returns n TCP ports that are free on the nodes' addresses, and nobody else's before the end of the test.
func claimPorts(t *testing.T, n int) []int {
	t.Helper()
	if ln, err := net.Listen("tcp", lab.HostPort(lab.Loopback(2), 0)); err != nil {
		t.Skipf("this system has no loopback addresses but 127.0.0.1: %v", err)
	} else {
		ln.Close()
	}
	ports, release, err := lab.ClaimPorts(n, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return ports
}
