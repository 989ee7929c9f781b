package balancers

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/examples/internal/lab"
	"github.com/flotilla-ha/flotilla/examples/internal/process"
)

const (
	domain  = "api.balancers.test" // ".test" is reserved for this: RFC 6761, section 6.2
	http01  = "http-01"
	tlsALPN = "tls-alpn-01"

	proxyIP  = "127.0.0.1" // of HAProxy, and the address from which nginx connects to nodes
	nginxIP  = "127.0.0.6"
	clientIP = "127.0.0.5"

	// waitLimit bounds the wait for one thing. It is long because the machine may be busy.
	waitLimit = 30 * time.Second
)

// cluster is three nodes behind balancers.
type cluster struct {
	nodes  []*member
	ports  []int // cluster, https, http, health
	ca     *lab.Authority
	roots  *x509.CertPool
	rootCA string // path of a PEM file with the roots
	stats  string // path of the socket of HAProxy
}

// startCluster starts HAProxy, three nodes, and nginx if it is installed. It waits until HAProxy
// finds all nodes ready and each has a certificate. Everything ends with the test. Challenge is the
// only kind that nodes solve; empty: any.
func startCluster(t *testing.T, challenge string) *cluster {
	t.Helper()
	need(t, "haproxy")
	if err := process.LoopbackAvailable(); err != nil {
		t.Skip(err)
	}
	ports, release, err := process.ClaimPorts(4, 6)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	cl := &cluster{ports: ports, roots: x509.NewCertPool(), rootCA: filepath.Join(t.TempDir(), "root.pem")}
	where := func(name string) net.IP {
		if name != domain {
			return nil
		}
		return net.ParseIP(proxyIP)
	}
	if cl.ca, err = lab.StartAuthority(cl.httpPort(), cl.httpsPort(), where, io.Discard, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.ca.Close)
	cl.roots.AddCert(cl.ca.Root)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cl.ca.Root.Raw})
	if err := os.WriteFile(cl.rootCA, text, 0o600); err != nil {
		t.Fatal(err)
	}

	secret := flotilla.NewSecret().Encode()
	var peers []string
	for i, name := range []string{"n1", "n2", "n3"} { // the names of haproxy.cfg
		ip := process.Loopback(i)
		peers = append(peers, process.HostPort(ip, ports[0]))
		s := settings{
			Name: name, Dir: filepath.Join(t.TempDir(), name), Secret: secret,
			Challenge: challenge, CA: cl.ca.URL, Roots: cl.ca.Endpoint, Addr: peers[i],
			HTTPS: process.HostPort(ip, ports[1]), HTTP: process.HostPort(ip, ports[2]), Health: process.HostPort(ip, ports[3]),
		}
		p := process.New(process.Config{Name: name, Variable: nodeEnv})
		cl.nodes = append(cl.nodes, &member{Process: p, settings: s})
	}
	cl.startHAProxy(t)
	t.Cleanup(func() {
		for _, m := range cl.nodes {
			m.Kill()
			if t.Failed() {
				t.Logf("the last lines of node %s:\n%s", m.Name(), m.Log().Tail(40))
			}
		}
	})
	for _, m := range cl.nodes {
		m.settings.Peers = peers
		if err := m.start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range cl.nodes {
		cl.awaitServing(t, m)
	}
	cl.startNginx(t)
	return cl
}

func (cl *cluster) httpsPort() int { return cl.ports[1] }
func (cl *cluster) httpPort() int  { return cl.ports[2] }

// awaitServing waits until HAProxy finds m ready, and m serves the certificate.
func (cl *cluster) awaitServing(t *testing.T, m *member) {
	t.Helper()
	cl.awaitState(t, m, "UP", "L7OK")
	await(t, func(ctx context.Context) error {
		c := cl.client(direct(m), "HTTP/1.1")
		defer c.CloseIdleConnections()
		_, err := ask(ctx, c, nil)
		return err
	})
}

// others returns all nodes except one.
func (cl *cluster) others(but *member) []*member {
	return slices.DeleteFunc(slices.Clone(cl.nodes), func(m *member) bool { return m == but })
}

// member is one node as the test sees it.
type member struct {
	*process.Process
	settings settings
}

// start starts the process. It does not wait for the node.
func (m *member) start() error { return m.Start(m.settings) }

// signal sends the process a signal.
func (m *member) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := m.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// awaitEnd waits until the process has ended with status 0.
func (m *member) awaitEnd(t *testing.T) {
	t.Helper()
	if err := m.AwaitExit(t.Context(), waitLimit); err != nil {
		t.Fatal(err)
	}
}

// need skips the test if a program is not installed.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(program)
	}
}

// await calls f until it succeeds. It fails the test if that takes longer than waitLimit.
func await(t *testing.T, f func(context.Context) error) {
	t.Helper()
	if err := process.Await(t.Context(), waitLimit, f); err != nil {
		t.Fatal(err)
	}
}
