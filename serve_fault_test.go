package flotilla

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
)

// certmagic looks for wildcards in a time that is the square of a name's length: seconds of a processor for one ClientHello, or one Host.
func TestLongNamesAreRefused(t *testing.T) {
	name := strings.Repeat("a.", 3000) + "test"
	hosts := map[string]func(*certmagic.Config){
		"ordinary": func(*certmagic.Config) {},
		"fallback": func(c *certmagic.Config) { c.FallbackServerName = "a.test" },
		"on demand": func(c *certmagic.Config) {
			c.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: func(context.Context, string) error { return nil }}
		},
	}
	for host, configure := range hosts {
		t.Run(host, func(t *testing.T) {
			storage := newMemStorage()
			c, err := openCerts(certPolicy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
				cfg.Issuers = []certmagic.Issuer{&devca.Issuer{Storage: storage}}
				configure(cfg)
			}}, storage, false, always, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.close)
			cfg, err := c.tlsConfig("a.test")
			if err != nil {
				t.Fatal(err)
			}
			for _, protos := range [][]string{nil, {acmez.ACMETLS1Protocol}, {acmez.ACMETLS1Protocol, "h2"}} {
				if _, err := cfg.GetConfigForClient(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: protos}); err != errUnknownName {
					t.Errorf("ALPN %q: %v", protos, err)
				}
			}
			r := httptest.NewRequest("GET", "/", nil)
			r.TLS, r.Host = &tls.ConnectionState{}, name
			h := c.hsts(time.Hour, http.NotFoundHandler())
			if n := testing.AllocsPerRun(1, func() { h.ServeHTTP(httptest.NewRecorder(), r) }); n > 1000 {
				t.Errorf("%v allocations for a Host", n)
			}
		})
	}
}

// A client that offers a challenge's protocol among others is no authority's, and a name that nobody serves is not its way past the door.
func TestChallengeAmongOtherProtocols(t *testing.T) {
	c := devCerts(t, newMemStorage(), nil)
	cfg, err := c.tlsConfig("a.test")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{"a.test": nil, "b.test": errUnknownName} {
		if _, err := cfg.GetConfigForClient(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{acmez.ACMETLS1Protocol, "h2"}}); err != want {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

// What a compromised key has vouched for ends everywhere, wherever the key was kept.
func TestTicketsOfACompromisedKeyOfANodesOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), func(c *Config) { c.TLS.PerNode = true })
		awaitTickets(t, nodes, hasCurrent)
		before := nodes[0].store.State().Tickets
		_, rest := leaderOf(t, nodes)
		if err := rest[0].certs.config.Storage.Store(t.Context(), "certificates/ca/a.test/a.test.key.compromised", []byte("x")); err != nil {
			t.Fatal(err)
		}
		if now := nodes[0].store.State().Tickets; now != nil && slices.ContainsFunc(append(now.Previous, now.Current), func(k []byte) bool { return bytes.Equal(k, before.Current) }) {
			t.Error("tickets of before are accepted")
		}
	})
}

// Whoever watches the status hears of certificates, although nothing else happens then.
func TestWatchTellsOfCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, answers := barrier()
		n := fleet(t, simnet.New(), []string{"a"}, func(c *Config) {
			c.TLS.Configure = func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
				cfg.Issuers = []certmagic.Issuer{&faultyIssuer{devca.Issuer{Storage: cfg.Storage}, func() error { return answer(t.Context()) }}}
			}
		})[0]
		n.certs.lookup, n.certs.dial = new(internet).lookup, new(internet).dial
		ready, enter := barrier()
		n.certs.ready = ready
		var last Status
		ended := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer close(ended)
			for s := range n.Watch(ctx) {
				last = s
			}
		}()
		check := func(when string) {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			if !sameStatus(last, n.Status()) {
				t.Errorf("%s: the newest status yielded has %+v, and the status %+v", when, last.Certificates, n.Status().Certificates)
			}
		}
		check("nothing")
		startAll(t, []*certs{n.certs}, "a.test")
		check("a name")
		startAll(t, []*certs{n.certs}, "b.test")
		check("another name")
		n.certs.absent("a.test")
		check("self-signed")
		n.certs.present("a.test")
		check("not any more")
		enter()
		answers()
		check("obtained")
		n.certs.noteStale("a.test", errInjected)
		check("not renewed")
		n.certs.note("a.test", nil)
		check("renewed")
		cancel()
		<-ended
	})
}

// Keys that were dropped stay dropped on a node that is started alone.
func TestDroppedTicketsStayDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		awaitTickets(t, nodes, hasCurrent)
		if err := nodes[0].Storage().Store(t.Context(), "certificates/ca/a.test/a.test.crt", []byte("x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		before := nodes[2].store.State().Tickets
		if err := nodes[0].DropTickets(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(snapshotQuiet + snapshotJitter + time.Second)
		for _, n := range nodes {
			if n != nodes[2] {
				net.Host(n.self.name).Kill()
			}
			n.Close()
		}
		alone := reviewReopen(t, nodes[2])
		time.Sleep(time.Second)
		if alone.store.State().Index == 0 {
			t.Fatal("it has no snapshot")
		}
		if now := alone.store.State().Tickets; now != nil && bytes.Equal(now.Current, before.Current) {
			t.Fatal("a key that was dropped is in use")
		}
	})
}

// The other nodes' certificates are not this node's where each has its own, and an old machine has none that an authority would give.
func TestProbeOfNodesWithTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		real := devCerts(t, newMemStorage(), nil)
		served, err := real.tlsConfig("a.test", "b.test")
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
			c := newACMEOrders(t, newMemStorage(), "this", world, errInjected)
			c.shared = newMemStorage() // another than its own
			if l := c.probe(t.Context(), "a.test"); l.here != tc.here || (l.away == nil) != tc.here {
				t.Errorf("%s: %+v", what, l)
			}
		}
	})
}
