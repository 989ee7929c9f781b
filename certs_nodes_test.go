package flotilla

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// A certificate that is damaged in the replicated state is ordered once, and quarantined.
func TestDamagedCertificateOfTheCluster(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		const name = "a.example"
		ca := testca.New(t, testca.Config{Trusting: true})
		nodes := trio(t, simnet.New(), func(c *Config) { stubTLS(c, ca, nil) })
		for _, n := range nodes {
			serveNames(t, []*Node{n}, name)
		}
		time.Sleep(time.Minute)
		old := sameSerial(t, nodes, name, "")
		crt := certmagic.StorageKeys.SiteCert(nodes[0].certs.Issuers()[0], name)
		if err := nodes[1].Storage().Store(t.Context(), crt, []byte("garbage")); err != nil {
			t.Fatal(err)
		}
		sameSerial(t, nodes, name, "") // from memory
		time.Sleep(30 * time.Second)
		synctest.Wait()
		sameSerial(t, nodes, name, old)
		if n := len(ca.Placed("")); n != 2 {
			t.Errorf("%d orders, want 2", n)
		}
		for _, n := range nodes {
			if s := n.Status().Certificates[0]; s.Err != "" {
				t.Errorf("%s: %s", n.self.Name, s.Err)
			}
		}
		if kept, err := nodes[2].Storage().List(t.Context(), "flotilla/quarantine", false); err != nil || len(kept) != 1 {
			t.Errorf("quarantined: %v, %v", kept, err)
		}
	})
}

// With OnDemand set, declared names are obtained as always, and handshakes get other names beside
// them. Status has both.
func TestOnDemandBesideDeclared(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var declared atomic.Int64 // times that the decision function was asked for the declared name
		decide := func(cfg *certmagic.Config) {
			cfg.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: func(_ context.Context, name string) error {
				if name == "home.example" {
					declared.Add(1)
				}
				if !strings.HasSuffix(name, ".wanted.example") {
					return errors.New("not a customer's")
				}
				return nil
			}}
		}
		ca := testca.New(t, testca.Config{Trusting: true})
		nodes := trio(t, simnet.New(), func(c *Config) { stubTLS(c, ca, decide) })
		var configs []*tls.Config
		for _, n := range nodes {
			cfg, err := n.TLSConfig("home.example")
			if err != nil {
				t.Fatal(err)
			}
			configs = append(configs, cfg)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n := len(ca.Placed("home.example")); n != 1 {
			t.Errorf("%d orders of the declared name before anybody asked for it, want 1", n)
		}
		if declared.Load() != 0 {
			t.Error("the decision function was asked for the declared name")
		}
		first := testtls.Serial(configs[0], "a.wanted.example")
		for i, cfg := range configs {
			if got := testtls.Serial(cfg, "a.wanted.example"); got != first || got == "" {
				t.Errorf("node %d shows %q, another %q", i, got, first)
			}
			if got := testtls.Serial(cfg, "unwanted.example"); got != "" {
				t.Errorf("shows %q for a name that is not allowed", got)
			}
		}
		if n := len(ca.Placed("a.wanted.example")); n != 1 {
			t.Errorf("%d orders on demand, want 1", n)
		}
		for _, n := range nodes {
			s := n.Status()
			if len(s.Certificates) != 2 || s.OnDemand != 1 || s.Certificates[0].OnDemand || !s.Certificates[1].OnDemand ||
				s.Certificates[1].Name != "a.wanted.example" || s.Certificates[1].Serial != first || s.Certificates[0].Err != "" {
				t.Errorf("status: %d, %+v", s.OnDemand, s.Certificates)
			}
		}
		// A declared name needs no permission, and a name on demand may be declared later.
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

// A limit that one node learns of is in the replicated state, and in the status of all nodes.
func TestLimitInTheReplicatedState(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ca := testca.New(t, testca.Config{Trusting: true})
		var limited atomic.Bool
		limited.Store(true)
		ca.Refuse(func(r testca.Request) *testca.Refusal {
			if r.Op != "order" || !limited.Load() {
				return nil
			}
			return testca.Problem(429, "rateLimited", "slow down", "1800")
		})
		nodes := trio(t, simnet.New(), func(c *Config) {
			stubTLS(c, ca, nil)
			c.Timing = WAN
		})
		for _, n := range nodes {
			serveNames(t, []*Node{n}, "a.example")
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		for _, n := range nodes {
			s := n.Status().Certificates[0]
			if left := time.Until(s.Next); left < 19*time.Minute || left > 21*time.Minute || !strings.Contains(s.Err, "slow down") || s.Failures != 1 {
				t.Errorf("%s: the next try is in %v: %+v", n.self.Name, left, s)
			}
		}
		if n := len(ca.Placed("")); n != 1 {
			t.Errorf("%d orders, want 1", n)
		}
		limited.Store(false)
		time.Sleep(21 * time.Minute)
		synctest.Wait()
		for _, n := range nodes {
			if s := n.Status().Certificates[0]; s.Err != "" || s.Serial == "" || !s.Next.IsZero() {
				t.Errorf("%s: %+v", n.self.Name, s)
			}
		}
	})
}

// A flood of names that are not served leaves no trace in raft's log.
func TestFloodOfUnknownNames(t *testing.T) {
	SkipShort(t)
	const names = 2000
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
	for s := range n.Watch(t.Context()) {
		if len(s.Certificates) > 0 && s.Certificates[0].Serial != "" {
			break
		}
	}
	index := n.Status().Index
	for i := range names {
		name := fmt.Sprintf("%x.%d.example", i*7919, i)
		_, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err == nil || !strings.Contains(err.Error(), "remote error: tls: internal error") {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
	// A node writes some entries of its own after its start, and when a busy machine makes it lose its
	// lease.
	if entries := n.Status().Index - index; entries > names/10 {
		t.Errorf("%d entries in raft's log for %d names", entries, names)
	}
}
