package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/probe"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// internet is where names lead, for one test.
type internet struct {
	mu     sync.Mutex
	names  map[string][]string                                // addresses; nil: there is no such name
	hosts  map[string]func(context.Context) (net.Conn, error) // by address and port; nil: refused
	dialed []string
}

func (i *internet) lookup(ctx context.Context, _, name string) ([]netip.Addr, error) {
	i.mu.Lock()
	all := i.names[name]
	i.mu.Unlock()
	var addrs []netip.Addr
	for _, a := range all {
		if a == "never" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	if addrs == nil {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return addrs, nil
}

func (i *internet) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	i.mu.Lock()
	host := i.hosts[addr]
	i.dialed = append(i.dialed, addr)
	i.mu.Unlock()
	if host == nil {
		return nil, errors.New("connection refused")
	}
	return host(ctx)
}

// lead makes name lead to these addresses from now on.
func (i *internet) lead(name string, addrs ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.names[name] = addrs
}

// open makes these the hosts.
func (i *internet) open(hosts map[string]func(context.Context) (net.Conn, error)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.hosts = hosts
}

// node is a host where cfg is served.
func node(cfg *tls.Config) func(context.Context) (net.Conn, error) {
	return func(context.Context) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			tls.Server(server, cfg).Handshake()
		}()
		return client, nil
	}
}

// silent is a host that takes connections and says nothing.
func silent(context.Context) (net.Conn, error) {
	client, _ := net.Pipe()
	return client, nil
}

// acmeOrders are the certificates of a node whose orders are recorded, and refused.
type acmeOrders struct {
	*Certs
	placed stubca.Orders
}

func newACMEOrders(t *testing.T, storage certmagic.Storage, cluster string, net *internet, refusal error, with ...func(*Config)) *acmeOrders {
	t.Helper()
	a := new(acmeOrders)
	ca := testca.New(t, testca.Config{Trusting: true})
	ca.Refuse(func(r testca.Request) *testca.Refusal {
		if r.Op != "order" {
			return nil
		}
		a.placed.Place()
		return testca.Problem(http.StatusForbidden, "unauthorized", refusal.Error(), "")
	})
	c, err := openCerts(policyOf(ca, nil), storage, false, always, nil, append([]func(*Config){func(c *Config) {
		c.Cluster, c.Lookup, c.Dial, c.Listen = func() string { return cluster }, net.lookup, net.dial, stubca.Listen
	}}, with...)...)
	if err != nil {
		t.Fatal(err)
	}
	a.Certs = c
	t.Cleanup(c.Close)
	return a
}

func TestOrderWaitsForTheName(t *testing.T) {
	synctest.Parallel(t)
	const one, other = "192.0.2.1", "192.0.2.9"
	for _, tc := range []struct {
		name     string
		leads    []string // nil: nowhere
		later    []string // two seconds later
		domain   string   // a.test
		min, max time.Duration
		dialed   string
	}{
		{name: "nobody knows the name", max: orderJitter},
		{name: "the resolver does not answer", leads: []string{"never"}, min: probe.Timeout, max: probe.Timeout + orderJitter},
		{name: "to this node", leads: []string{one}, max: orderJitter, dialed: one + ":443"},
		{name: "to another node", leads: []string{"192.0.2.2"}, max: orderJitter, dialed: "192.0.2.2:443"},
		{name: "by one of its addresses", leads: []string{other, "2001:db8::1"}, max: orderJitter},
		{name: "to another cluster", leads: []string{"192.0.2.8"}, min: probe.SeekTime, max: probe.SeekTime + probe.Interval + orderJitter, dialed: "192.0.2.8:443"},
		{name: "refused", leads: []string{other}, min: probe.SeekTime, max: probe.SeekTime + probe.Interval + orderJitter, dialed: other + ":443"},
		{name: "silent", leads: []string{"192.0.2.7"}, min: probe.SeekTime, max: probe.SeekTime + probe.Timeout + orderJitter},
		{name: "elsewhere at first", leads: []string{other}, later: []string{one}, min: 2 * time.Second, max: 2*time.Second + probe.Interval + orderJitter},
		{name: "an address", domain: one, max: orderJitter, dialed: one + ":443"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				domain := tc.domain
				if domain == "" {
					domain = "a.test"
				}
				world := &internet{names: map[string][]string{"a.test": tc.leads}}
				nowhere := &internet{}
				this := newACMEOrders(t, newMemStorage(), "this", world, errInjected)
				mate := newACMEOrders(t, newMemStorage(), "this", nowhere, errInjected)
				stranger := newACMEOrders(t, newMemStorage(), "that", nowhere, errInjected)
				var configs []*tls.Config
				for _, c := range []*acmeOrders{mate, stranger, this} {
					cfg, err := c.TLSConfig(domain)
					if err != nil {
						t.Fatal(err)
					}
					configs = append(configs, cfg)
				}
				world.open(map[string]func(context.Context) (net.Conn, error){
					"192.0.2.2:443": node(configs[0]), "192.0.2.8:443": node(configs[1]), one + ":443": node(configs[2]),
					"[2001:db8::1]:443": node(configs[2]), "192.0.2.7:443": silent,
				})
				began := time.Now()
				if tc.later != nil {
					time.Sleep(2 * time.Second)
					world.lead("a.test", tc.later...)
				}
				for this.placed.Count() == 0 && time.Since(began) < time.Minute {
					time.Sleep(time.Millisecond)
				}
				if d := time.Since(began) - time.Millisecond; this.placed.Count() == 0 || d < tc.min || d > tc.max {
					t.Errorf("%d orders after %v, want one between %v and %v", this.placed.Count(), d, tc.min, tc.max)
				}
				world.mu.Lock()
				defer world.mu.Unlock()
				if tc.dialed != "" && (len(world.dialed) == 0 || world.dialed[0] != tc.dialed) {
					t.Errorf("dialled %v", world.dialed)
				}
			})
		})
	}
}

// A probe recognizes a node by a certificate that is in this node's memory.
func TestProbeKnowsWhatIsServed(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		first := devCerts(t, storage, nil)
		cfg, err := first.TLSConfig("a.test")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		settle(t, first)
		time.Sleep(devca.LeafLife)
		world := &internet{names: map[string][]string{"a.test": {"192.0.2.1"}}}
		world.open(map[string]func(context.Context) (net.Conn, error){"192.0.2.1:443": node(cfg)})
		c := newACMEOrders(t, storage, "this", world, errInjected)
		if l := c.obtainer.prober.Probe(t.Context(), "a.test"); l.Here || l.Away == nil {
			t.Errorf("a certificate that this node has not: %+v", l)
		}
		c.loader.config.Issuers = append(c.loader.config.Issuers, &devca.Issuer{Storage: storage})
		if err := c.loader.refresh(t.Context(), "a.test"); err != nil {
			t.Fatal(err)
		}
		if l := c.obtainer.prober.Probe(t.Context(), "a.test"); !l.Here {
			t.Errorf("its own certificate: %+v", l)
		}
	})
}

// counts returns how many orders there are after each of these times.
func counts(c *acmeOrders, at ...time.Duration) []int {
	var counts []int
	began := time.Now()
	for _, d := range at {
		time.Sleep(d - time.Since(began))
		synctest.Wait()
		counts = append(counts, c.placed.Count())
	}
	return counts
}

// An authority that has refused an order gets a few more at growing intervals, and none for a name
// that leads elsewhere.
func TestRetriesSpareTheAuthority(t *testing.T) {
	synctest.Parallel(t)
	skipShort(t)
	refusal := errors.New("the proof was wrong")
	start := func(t *testing.T, leads ...string) (*acmeOrders, *internet) {
		world := &internet{names: map[string][]string{"a.test": leads}}
		c := newACMEOrders(t, newMemStorage(), "this", world, refusal)
		cfg, err := c.TLSConfig("a.test")
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := newACMEOrders(t, newMemStorage(), "that", &internet{}, refusal).TLSConfig("a.test")
		if err != nil {
			t.Fatal(err)
		}
		world.open(map[string]func(context.Context) (net.Conn, error){"192.0.2.1:443": node(cfg), "192.0.2.9:443": node(stranger)})
		return c, world
	}
	for _, tc := range []struct {
		name  string
		leads []string
		probe time.Duration // before each order
	}{
		{name: "nowhere"},
		{name: "here", leads: []string{"192.0.2.1"}},
		{name: "to where nobody answers this node", leads: []string{"192.0.2.5"}, probe: probe.SeekTime + probe.Interval},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := start(t, tc.leads...)
				got := counts(c, 11*time.Second+4*(orderJitter+tc.probe), backoff.RetrySlow/2, 5*time.Hour, 10*time.Hour)
				if diff := cmp.Diff([]int{1 + backoff.RetryQuick, 1 + backoff.RetryQuick}, got[:2]); diff != "" {
					t.Errorf("orders (-want +got):\n%s", diff)
				}
				if late := got[3] - got[2]; late < 3 || late > 10 {
					t.Errorf("%d orders in five later hours", late)
				}
			})
		})
	}
	t.Run("elsewhere, then here", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, world := start(t, "192.0.2.9")
			counts(c, probe.SeekTime+3*time.Second)
			text := c.Status()[0].Err.Error()
			if got := counts(c, 2*time.Minute); got[0] != 1 {
				t.Errorf("%d orders while the name leads elsewhere, want 1", got[0])
			}
			for _, part := range []string{"a.test leads to 192.0.2.9:443, which is no node of this cluster: a certificate of somebody else is shown: \"flotilla: no certificate yet\"", "the proof was wrong"} {
				if !strings.Contains(text, part) {
					t.Errorf("status %q does not say %q", text, part)
				}
			}
			world.lead("a.test", "192.0.2.1")
			// One probe, one look, and then as many quick ones as if nothing had been ordered yet.
			got := counts(c, 2*probe.Again+lookInterval+orderJitter, time.Minute)
			if got[0] < 2 || got[1] != 2+backoff.RetryQuick {
				t.Errorf("%v orders when it leads here", got)
			}
			// A name that comes and goes is not ordered each time.
			for range 20 {
				world.lead("a.test", "192.0.2.9")
				time.Sleep(10 * time.Second)
				world.lead("a.test", "192.0.2.1")
				time.Sleep(20 * time.Second)
			}
			if n := c.placed.Count(); n > 2+backoff.RetryQuick+3 {
				t.Errorf("%d orders for a name that comes and goes", n)
			}
		})
	})
	t.Run("elsewhere for good", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := start(t, "192.0.2.9")
			if got := counts(c, time.Hour); got[0] < 3 || got[0] > 6 {
				t.Errorf("%d orders in an hour: this node may be the one that is wrong", got[0])
			}
		})
	})
	t.Run("here only now and then", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			world := &internet{names: map[string][]string{"a.test": {"192.0.2.1"}}}
			var here time.Time // last
			c := newACMEOrders(t, newMemStorage(), "this", world, refusal, func(c *Config) {
				c.Lookup = func(ctx context.Context, network, name string) ([]netip.Addr, error) {
					if time.Since(here) < probe.SeekTime+time.Second {
						return []netip.Addr{netip.MustParseAddr("192.0.2.9")}, nil
					}
					here = time.Now()
					return world.lookup(ctx, network, name)
				}
			})
			here = time.Now()
			cfg, err := c.TLSConfig("a.test")
			if err != nil {
				t.Fatal(err)
			}
			world.open(map[string]func(context.Context) (net.Conn, error){"192.0.2.1:443": node(cfg)})
			// One more than otherwise in ten minutes at most.
			if got := counts(c, time.Hour); got[0] < 4 || got[0] > 11 {
				t.Errorf("%d orders in an hour", got[0])
			}
		})
	})
}

// If each node has certificates of its own, a probe accepts any that an authority has issued for
// the name, and no self-signed one of an old machine.
func TestProbeOfNodesWithTheirOwn(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		real := devCerts(t, newMemStorage(), nil)
		served, err := real.TLSConfig("a.test", "b.test")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		settle(t, real)
		other := served.Clone()
		other.GetConfigForClient, other.GetCertificate = nil, func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			b := *hello
			b.ServerName = "b.test"
			return served.GetCertificate(&b)
		}
		self, _ := identityFor(t, "a.test")
		for what, tc := range map[string]struct {
			shown *tls.Config
			here  bool
		}{
			"another node's":          {served, true},
			"for another name":        {other, false},
			"of an old machine's own": {&tls.Config{Certificates: []tls.Certificate{self}}, false},
		} {
			world := &internet{names: map[string][]string{"a.test": {"192.0.2.1"}}}
			world.open(map[string]func(context.Context) (net.Conn, error){"192.0.2.1:443": node(tc.shown)})
			c := newACMEOrders(t, newMemStorage(), "this", world, errInjected, func(c *Config) {
				c.Shared = newMemStorage() // another than its own
			})
			if l := c.obtainer.prober.Probe(t.Context(), "a.test"); l.Here != tc.here || (l.Away == nil) != tc.here {
				t.Errorf("%s: %+v", what, l)
			}
		}
	})
}

// identityFor returns a certificate for the names, and the pool that verifies it.
func identityFor(t *testing.T, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: devca.NewSerial(), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotAfter: time.Now().AddDate(1, 0, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}
