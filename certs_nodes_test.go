package flotilla

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/frontend/tickets"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testtls"
	"github.com/mholt/acmez/v3"
)

// Real nodes that are started anew find garbage in the replicated state.
func TestDamagedCertificateOfTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const name = "a.example"
		ca := newStubCA(t)
		nodes := trio(t, simnet.New(), func(c *Config) { c.TLS = tlsOf(policyOf(ca, nil)) })
		for _, n := range nodes {
			offline(n.certs)
			startAll(t, []*certs{n.certs}, name)
		}
		time.Sleep(time.Minute)
		old := sameSerial(t, nodes, name, "")
		crt := certmagic.StorageKeys.SiteCert(acmeIssuer(nodes[0].certs).IssuerKey(), name)
		if err := nodes[1].Storage().Store(t.Context(), crt, []byte("garbage")); err != nil {
			t.Fatal(err)
		}
		sameSerial(t, nodes, name, "") // from memory
		time.Sleep(30 * time.Second)
		synctest.Wait()
		sameSerial(t, nodes, name, old)
		if n := len(ca.placed("")); n != 2 {
			t.Errorf("%d orders, want 2", n)
		}
		for _, n := range nodes {
			if s := n.Status().Certificates[0]; s.Err != "" {
				t.Errorf("%s: %s", n.name, s.Err)
			}
		}
		if kept, err := nodes[2].Storage().List(t.Context(), asidePlace, false); err != nil || len(kept) != 1 {
			t.Errorf("kept aside: %v, %v", kept, err)
		}
	})
}

// With OnDemand set, declared names are obtained as always, and handshakes get others beside them. Both are in status.
func TestOnDemandBesideDeclared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w wishes
		ca := newStubCA(t)
		nodes := trio(t, simnet.New(), func(c *Config) { c.TLS = tlsOf(policyOf(ca, w.configure)) })
		var configs []*tls.Config
		for _, n := range nodes {
			offline(n.certs)
			cfg, err := n.TLSConfig("home.example")
			if err != nil {
				t.Fatal(err)
			}
			configs = append(configs, cfg)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := len(ca.placed("home.example")); n != 1 {
			t.Errorf("%d orders of the declared name before anybody asked for it, want 1", n)
		}
		if w.asked["home.example"] != 0 {
			t.Error("the decision function was asked for the declared name")
		}
		first := shown(configs[0], "a.wanted.example")
		for i, cfg := range configs {
			if got := shown(cfg, "a.wanted.example"); got != first || got == "" {
				t.Errorf("node %d shows %q, another %q", i, got, first)
			}
			if got := shown(cfg, "unwanted.example"); got != "" {
				t.Errorf("shows %q for a name that is not allowed", got)
			}
		}
		if n := len(ca.placed("a.wanted.example")); n != 1 {
			t.Errorf("%d orders on demand, want 1", n)
		}
		for _, n := range nodes {
			s := n.Status()
			if len(s.Certificates) != 2 || s.OnDemand != 1 || s.Certificates[0].OnDemand || !s.Certificates[1].OnDemand ||
				s.Certificates[1].Name != "a.wanted.example" || s.Certificates[1].Serial != first || s.Certificates[0].Err != "" {
				t.Errorf("status: %d, %+v", s.OnDemand, s.Certificates)
			}
		}
		// A declared name needs no leave, and what was on demand may be declared later.
		for _, n := range nodes {
			if _, err := n.TLSConfig("a.wanted.example"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if s := nodes[0].Status(); len(s.Certificates) != 2 || s.OnDemand != 0 {
			t.Errorf("status after it was declared: %d, %+v", s.OnDemand, s.Certificates)
		}
	})
}

// Real nodes: what one learns is in the replicated state, and in everybody's status.
func TestLimitInTheReplicatedState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newStubCA(t)
		ca.refuse = func(what string, _ []string) *http.Response {
			if what != "order" {
				return nil
			}
			return ca.problem(429, "rateLimited", "slow down", "1800")
		}
		nodes := trio(t, simnet.New(), func(c *Config) { c.TLS, c.Timing = tlsOf(policyOf(ca, nil)), WAN })
		for _, n := range nodes {
			offline(n.certs)
			startAll(t, []*certs{n.certs}, "a.example")
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		for _, n := range nodes {
			s := n.Status().Certificates[0]
			if left := time.Until(s.Next); left < 19*time.Minute || left > 21*time.Minute || !strings.Contains(s.Err, "slow down") || s.Failures != 1 {
				t.Errorf("%s: the next try is in %v: %+v", n.name, left, s)
			}
		}
		if n := len(ca.placed("")); n != 1 {
			t.Errorf("%d orders, want 1", n)
		}
		ca.refuse = nil
		time.Sleep(21 * time.Minute)
		synctest.Wait()
		for _, n := range nodes {
			if s := n.Status().Certificates[0]; s.Err != "" || s.Serial == "" || !s.Next.IsZero() {
				t.Errorf("%s: %+v", n.name, s)
			}
		}
	})
}

func TestFloodOfUnknownNames(t *testing.T) {
	const names = 2000
	for _, tc := range []struct {
		name     string
		n        int
		protos   []string
		onDemand bool
		ops      int64 // of the storage for each
	}{
		{name: "ordinary", n: names},
		{name: "as a challenge", n: 200, protos: []string{acmez.ACMETLS1Protocol}, ops: 1}, // memory of this node: another node may have ordered
		{name: "on demand, not wanted", n: 200, onDemand: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			storage := &countedStorage{memStorage: newMemStorage()}
			var issued, asked, logged atomic.Int64
			c, err := openCerts(certPolicy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
				cfg.Issuers = []certmagic.Issuer{&countingIssuer{Issuer: devca.Issuer{Storage: storage}, issued: &issued}}
				if tc.onDemand {
					cfg.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: func(_ context.Context, name string) error {
						asked.Add(1)
						return errInjected
					}}
				}
			}}, storage, true, always, slog.New(countedLog{n: &logged}))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.close)
			addr := serveTLS(t, c, http.NotFoundHandler(), "home.test")
			settle(t, c)
			if _, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "home.test", InsecureSkipVerify: true}); err != nil {
				t.Fatal(err)
			}
			ops, looks, orders, records := storage.all.Load(), storage.looks.Load(), issued.Load(), logged.Load()
			if n := flood(t, addr, tc.n, tc.protos...); n != 0 {
				t.Errorf("%d got through", n)
			}
			ops, looks = storage.all.Load()-ops, storage.looks.Load()-looks
			if ops != looks || ops != tc.ops*int64(tc.n) {
				t.Errorf("%d calls of the storage for %d names, %d of them ask whether something is there", ops, tc.n, looks)
			}
			if n := issued.Load() - orders; n != 0 {
				t.Errorf("%d orders", n)
			}
			if n := logged.Load() - records; n != 0 {
				t.Errorf("%d records in the log", n)
			}
			if tc.onDemand && asked.Load() < int64(tc.n) {
				t.Errorf("the decision function was asked %d times for %d names", asked.Load(), tc.n)
			}
		})
	}

	t.Run("node", func(t *testing.T) {
		n, err := Open(t.Context(), Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		ln, err := n.ListenTLS("tcp", "127.0.0.1:0", "localhost")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
		go srv.Serve(ln)
		t.Cleanup(func() { srv.Close() })
		if err := n.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !n.certs.await(t.Context(), "localhost", 30*time.Second, nil) {
			t.Fatal("no certificate")
		}
		n.certs.work.Wait()
		index := n.Status().Index
		flood(t, ln.Addr().String(), names)
		// A node writes some entries of its own when it has just started, or when a busy machine makes it lose its lease.
		if entries := n.Status().Index - index; entries > names/10 {
			t.Errorf("%d entries in raft's log for %d names", entries, names)
		}
	})
}

// A session that began with a self-signed certificate is not resumed, and one that began with a real one is, from the first on.
func TestSelfSignedSessionsEnd(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answer, answers := barrier()
				c := bootCerts(t, newMemStorage(), always, func() error { return answer(t.Context()) }, nil)
				server, err := c.tlsConfig("a.test", "*.wild.test")
				if err != nil {
					t.Fatal(err)
				}
				tickets.New(time.Hour, leasedAlways).Bind(server, c.provisional)
				clients := make(map[string]*tls.Config)
				for _, name := range []string{"a.test", "x.wild.test", ""} {
					clients[name] = &tls.Config{
						ServerName: name, InsecureSkipVerify: true, MaxVersion: version, ClientSessionCache: testtls.OneSession{ClientSessionCache: tls.NewLRUClientSessionCache(1)},
					}
					for range 3 {
						if resumes(t, clients[name], server) {
							t.Errorf("%q: a session is resumed while there is no certificate", name)
						}
					}
				}
				answers()
				settle(t, c)
				for name, client := range clients {
					for i, want := range []bool{false, true, true} {
						if got := resumes(t, client, server); got != want {
							t.Errorf("%q: connection %d resumes %v", name, i+1, got)
						}
					}
				}
				if all, a, wild := c.given.Load(), c.names["a.test"].given, c.names["*.wild.test"].given; all != 0 || a != 0 || wild != 0 {
					t.Errorf("handshakes under way: %d, %d and %d of them", all, a, wild)
				}
			})
		})
	}
}
