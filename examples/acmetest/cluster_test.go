package acmetest

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/examples/internal/process"
)

const (
	zone    = "acme.test" // the parent of every name
	home    = "home." + zone
	email   = "admin@flotilla.example"
	http01  = "http-01"
	tlsALPN = "tls-alpn-01"
	dns01   = "dns-01"

	// waitLimit bounds the wait for one thing. It is long because the machine may be busy.
	waitLimit = time.Minute
)

// errGone is the error of a question whose process ended before it had answered.
var errGone = errors.New("the process is gone")

// cluster is three nodes and their authority.
type cluster struct {
	ca     *authority
	nodes  []*member
	issued sync.Map // of members
}

// options are what the clusters of the tests differ in.
type options struct {
	challenge string   // the only kind that nodes solve; empty: any but DNS-01
	testCA    string   // URL of an ACME directory that nodes must not use
	domains   []string // served from the start; nil: home
	perNode   bool     // each node has its own certificates
}

// newCluster starts an authority and prepares three nodes for it. It starts no node. Everything
// ends with the test.
func newCluster(t *testing.T, o options) *cluster {
	t.Helper()
	if len(o.domains) == 0 {
		o.domains = []string{home}
	}
	ports := claimPorts(t, 3)
	c := &cluster{}
	issued := func() *sync.Map {
		if o.perNode { // each node has to obtain its own certificates
			return new(sync.Map)
		}
		return &c.issued
	}
	for i, name := range []string{"ada", "bob", "cyd"} {
		ip := process.Loopback(i)
		c.nodes = append(c.nodes, newMember(ip, issued(), settings{
			Name: name, Dir: filepath.Join(t.TempDir(), name),
			Addr: process.HostPort(ip, ports[0]), HTTPS: process.HostPort(ip, ports[1]), HTTP: process.HostPort(ip, ports[2]),
			Domains: o.domains, Challenge: o.challenge, TestCA: o.testCA, PerNode: o.perNode,
		}))
	}
	c.ca = newAuthority(t, ports[2], ports[1], func(string) []net.IP { return c.listening() })
	secret := flotilla.NewSecret().Encode()
	for _, m := range c.nodes {
		m.settings.DNS = c.ca.DNS
		m.roots, m.settings.CA, m.settings.Roots, m.settings.Secret = c.ca.roots, c.ca.URL, c.ca.Endpoint, secret
		for _, p := range c.nodes {
			m.settings.Peers = append(m.settings.Peers, p.settings.Addr)
		}
	}
	t.Cleanup(func() {
		for _, m := range c.nodes {
			m.Kill()
			if t.Failed() {
				t.Logf("the problems of node %s:\n%s\nand its last lines:\n%s", m.Name(), m.Log().Problems(20), m.Log().Tail(20))
			}
		}
	})
	return c
}

// startCluster also starts the nodes, and waits until each serves the first of the domains.
func startCluster(t *testing.T, o options) *cluster {
	t.Helper()
	c := newCluster(t, o)
	if err := c.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// start starts all nodes and waits until each serves the first of its domains.
func (c *cluster) start(ctx context.Context) error {
	for _, m := range c.nodes {
		if err := m.start(); err != nil {
			return err
		}
	}
	for _, m := range c.nodes {
		if _, err := m.serves(ctx, m.settings.Domains[0], nil); err != nil {
			return err
		}
	}
	return nil
}

// listening returns the addresses to which a balancer that only checks ports sends clients.
func (c *cluster) listening() []net.IP {
	var ips []net.IP
	for _, m := range c.nodes {
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

// others returns all nodes except one.
func (c *cluster) others(but *member) []*member {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(m *member) bool { return m == but })
}

// without returns the addresses of all nodes except one.
func (c *cluster) without(but *member) []net.IP {
	var ips []net.IP
	for _, m := range c.others(but) {
		ips = append(ips, m.ip)
	}
	return ips
}

// claimPorts returns n TCP ports that are free on the addresses of the nodes, and stay reserved
// until the end of the test.
func claimPorts(t *testing.T, n int) []int {
	t.Helper()
	if err := process.LoopbackAvailable(); err != nil {
		t.Skip(err)
	}
	ports, release, err := process.ClaimPorts(n, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return ports
}
