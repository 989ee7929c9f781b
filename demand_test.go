package flotilla

import (
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/testlog"

	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// wishes decides which names may have a certificate on demand: those below wanted.example that were not forbidden.
type wishes struct {
	mu        sync.Mutex
	asked     map[string]int
	forbidden map[string]bool
}

func (w *wishes) configure(cfg *certmagic.Config) {
	w.asked, w.forbidden = make(map[string]int), make(map[string]bool)
	cfg.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: w.decide}
}

func (w *wishes) decide(_ context.Context, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[name]++
	if !strings.HasSuffix(name, ".wanted.example") || w.forbidden[name] {
		return errInjected
	}
	return nil
}

// With OnDemand set, declared names are obtained as always, and handshakes get others beside them. Both are in status.
func TestOnDemandBesideDeclared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w wishes
		ca := newStubCA(t)
		nodes := trio(t, simnet.New(), func(c *Config) { c.TLS = tlsOf(ca.configure(w.configure)) })
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

// What is shown of many is bounded: those that expire first.
func TestOnDemandStatusIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w wishes
		storage := newMemStorage()
		c, err := openCerts(certPolicy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) { w.configure(cfg) }}, storage, true, always, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.close)
		cfg, err := c.tlsConfig()
		if err != nil {
			t.Fatal(err)
		}
		for i := range demandShown + 20 {
			if shown(cfg, fmt.Sprintf("n%d.wanted.example", i)) == "" {
				t.Fatal("no certificate")
			}
			time.Sleep(time.Second)
		}
		first, all := c.demands.status()
		if len(first) != demandShown || all != demandShown+20 || first[0].Domain != "n0.wanted.example" || first[99].Domain != "n99.wanted.example" {
			t.Errorf("%d of %d, from %s to %s", len(first), all, first[0].Domain, first[len(first)-1].Domain)
		}
	})
}

// A certificate on demand is renewed by one node, after the program was asked again; one that is not wanted any more, or was deleted, is no
// longer served.
func TestOnDemandIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w wishes
		var issued orderBook
		storage := newMemStorage()
		var nodes []*certs
		var configs []*tls.Config
		for range 3 {
			c, err := openCerts(certPolicy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
				if w.asked == nil {
					w.configure(cfg)
				}
				cfg.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: w.decide}
				cfg.Issuers = []certmagic.Issuer{&faultyIssuer{devIssuer{storage: storage}, issued.place}}
			}}, storage, true, always, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.close)
			cfg, err := c.tlsConfig()
			if err != nil {
				t.Fatal(err)
			}
			nodes, configs = append(nodes, c), append(configs, cfg)
		}
		storage.tell(nodes...)
		const keeps, ends = "keeps.wanted.example", "ends.wanted.example"
		old := map[string]string{}
		for _, cfg := range configs {
			for _, name := range []string{keeps, ends} {
				old[name] = shown(cfg, name)
			}
		}
		w.mu.Lock()
		w.forbidden[ends] = true
		w.mu.Unlock()
		time.Sleep(devLeafLife * 3 / 4)
		synctest.Wait()
		issued.check(t, 3)
		for i, cfg := range configs {
			if got := shown(cfg, keeps); got == old[keeps] || got == "" {
				t.Errorf("node %d shows %q for what was to be renewed, before %q", i, got, old[keeps])
			}
			if got := shown(cfg, ends); got != "" {
				t.Errorf("node %d shows %q for what is not wanted any more", i, got)
			}
		}
		if _, all := nodes[1].demands.status(); all != 1 {
			t.Errorf("%d are in status", all)
		}
		w.mu.Lock()
		w.forbidden[keeps] = true
		w.mu.Unlock()
		if err := storage.Delete(t.Context(), certmagic.StorageKeys.CertsSitePrefix(keyspace.DevIssuer, keeps)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for i, cfg := range configs {
			if got := shown(cfg, keeps); got != "" {
				t.Errorf("node %d shows %q for what was deleted and is not wanted", i, got)
			}
		}
		issued.check(t, 3)
	})
}

// A flood of names that the program allows takes no order from the declared ones, and is limited for the cluster.
func TestFloodOnDemandStarvesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w wishes
		ca := newStubCA(t)
		nodes := ca.stubbed(t, 3, newMemStorage(), func(cfg *certmagic.Config) {
			if w.asked == nil {
				w.configure(cfg)
			}
			cfg.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: w.decide}
		}, nil)
		for i, c := range nodes {
			cfg, err := c.tlsConfig("home.example")
			if err != nil {
				t.Fatal(err)
			}
			for j := range 200 {
				go shown(cfg, fmt.Sprintf("n%d-%d.wanted.example", i, j))
			}
		}
		time.Sleep(5 * time.Second)
		at := time.Now()
		startAll(t, nodes, someNames("declared", 15)...)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		for _, c := range nodes {
			for _, s := range c.status() {
				if s.Err != nil || !s.Managed {
					t.Errorf("%v after the declared names were added: %+v", time.Since(at), s)
				}
			}
		}
		time.Sleep(29 * time.Minute)
		if n := len(ca.placed("")) - 16; n < 10 || n > 40 {
			t.Errorf("%d orders on demand in half an hour", n)
		}
	})
}

// An authority that refuses a name on demand is not asked again for each handshake.
func TestRefusedOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w wishes
		ca := newStubCA(t)
		ca.refuse = func(what string, names []string) *http.Response {
			if what != "order" {
				return nil
			}
			return ca.problem(403, "unauthorized", "the proof was wrong", "")
		}
		nodes := ca.stubbed(t, 3, newMemStorage(), func(cfg *certmagic.Config) {
			if w.asked == nil {
				w.configure(cfg)
			}
			cfg.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: w.decide}
		}, nil)
		for range 20 {
			for _, c := range nodes {
				cfg, err := c.tlsConfig()
				if err != nil {
					t.Fatal(err)
				}
				if got := shown(cfg, "a.wanted.example"); got != "" {
					t.Errorf("shows %q", got)
				}
			}
			time.Sleep(time.Minute)
		}
		if n := len(ca.placed("")); n < 3 || n > 5 {
			t.Errorf("%d orders in 20 minutes", n)
		}
	})
}

// A clock that is wrong makes nobody wait for the renewal of what has expired by it alone.
func TestOnDemandWithWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w wishes
		var out bytes.Buffer
		storage := newMemStorage()
		c, err := openCerts(certPolicy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) { w.configure(cfg) }}, storage, true, always, testlog.To(&out, slog.LevelWarn))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.close)
		cfg, err := c.tlsConfig()
		if err != nil {
			t.Fatal(err)
		}
		old := shown(cfg, "a.wanted.example")
		c.clocks.observe("b", time.Now().Add(-farAhead), time.Now())
		if _, err := c.demand("b.wanted.example"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := c.order(t.Context(), "a.wanted.example", true, attempt{}); !errors.As(err, new(*clockError)) {
			t.Errorf("an order: %v", err)
		}
		began := time.Now()
		if got := shown(cfg, "a.wanted.example"); got != old || time.Since(began) > 0 {
			t.Errorf("shows %q after %v, want %q at once", got, time.Since(began), old)
		}
		if got := shown(cfg, "b.wanted.example"); got != "" {
			t.Errorf("shows %q for what may not be ordered now", got)
		}
	})
}
