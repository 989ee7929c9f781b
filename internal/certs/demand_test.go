package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// wishes allows certificates on demand for names below wanted.example that were not forbidden.
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

// Status shows a bounded number of names on demand: those that expire first.
func TestOnDemandStatusIsBounded(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var w wishes
		storage := newMemStorage()
		c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) { w.configure(cfg) }}, storage, true, always, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		cfg, err := c.TLSConfig()
		if err != nil {
			t.Fatal(err)
		}
		for i := range demandShown + 20 {
			if testtls.Serial(cfg, fmt.Sprintf("n%d.wanted.example", i)) == "" {
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

// One node renews a certificate on demand, after it has asked the program again. A certificate that
// is not wanted any more, or was deleted, is no longer served.
func TestOnDemandIsRenewed(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var w wishes
		var issued stubca.Orders
		storage := newMemStorage()
		var nodes []*Certs
		var configs []*tls.Config
		for range 3 {
			c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
				if w.asked == nil {
					w.configure(cfg)
				}
				cfg.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: w.decide}
				cfg.Issuers = []certmagic.Issuer{&stubca.Issuer{Issuer: devca.Issuer{Storage: storage}, Fails: issued.Place}}
			}}, storage, true, always, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			cfg, err := c.TLSConfig()
			if err != nil {
				t.Fatal(err)
			}
			nodes, configs = append(nodes, c), append(configs, cfg)
		}
		storage.notify(nodes...)
		const keeps, ends = "keeps.wanted.example", "ends.wanted.example"
		old := map[string]string{}
		for _, cfg := range configs {
			for _, name := range []string{keeps, ends} {
				old[name] = testtls.Serial(cfg, name)
			}
		}
		w.mu.Lock()
		w.forbidden[ends] = true
		w.mu.Unlock()
		time.Sleep(devca.LeafLife * 3 / 4)
		synctest.Wait()
		issued.Check(t, 3)
		for i, cfg := range configs {
			if got := testtls.Serial(cfg, keeps); got == old[keeps] || got == "" {
				t.Errorf("node %d shows %q for what was to be renewed, before %q", i, got, old[keeps])
			}
			if got := testtls.Serial(cfg, ends); got != "" {
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
			if got := testtls.Serial(cfg, keeps); got != "" {
				t.Errorf("node %d shows %q for what was deleted and is not wanted", i, got)
			}
		}
		issued.Check(t, 3)
	})
}

// A flood of allowed names takes no order from the declared ones, and is limited for the cluster.
func TestFloodOnDemandStarvesNobody(t *testing.T) {
	synctest.Parallel(t)
	skipShort(t)
	synctest.Test(t, func(t *testing.T) {
		var w wishes
		ca := testca.New(t, testca.Config{Trusting: true})
		nodes := stubbed(t, ca, 3, newMemStorage(), func(cfg *certmagic.Config) {
			if w.asked == nil {
				w.configure(cfg)
			}
			cfg.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: w.decide}
		}, nil)
		for i, c := range nodes {
			cfg, err := c.TLSConfig("home.example")
			if err != nil {
				t.Fatal(err)
			}
			for j := range 200 {
				go testtls.Serial(cfg, fmt.Sprintf("n%d-%d.wanted.example", i, j))
			}
		}
		time.Sleep(5 * time.Second)
		at := time.Now()
		startAll(t, nodes, stubca.Names("declared", 15)...)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		for _, c := range nodes {
			for _, s := range c.Status() {
				if s.Err != nil || !s.Managed {
					t.Errorf("%v after the declared names were added: %+v", time.Since(at), s)
				}
			}
		}
		time.Sleep(29 * time.Minute)
		if n := len(ca.Placed("")) - 16; n < 10 || n > 40 {
			t.Errorf("%d orders on demand in half an hour", n)
		}
	})
}

// A handshake does not ask an authority again that has refused its name.
func TestRefusedOnDemand(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var w wishes
		ca := testca.New(t, testca.Config{Trusting: true})
		ca.Refuse(func(r testca.Request) *testca.Refusal {
			if r.Op != "order" {
				return nil
			}
			return testca.Problem(403, "unauthorized", "the proof was wrong", "")
		})
		nodes := stubbed(t, ca, 3, newMemStorage(), func(cfg *certmagic.Config) {
			if w.asked == nil {
				w.configure(cfg)
			}
			cfg.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: w.decide}
		}, nil)
		for range 20 {
			for _, c := range nodes {
				cfg, err := c.TLSConfig()
				if err != nil {
					t.Fatal(err)
				}
				if got := testtls.Serial(cfg, "a.wanted.example"); got != "" {
					t.Errorf("shows %q", got)
				}
			}
			time.Sleep(time.Minute)
		}
		if n := len(ca.Placed("")); n < 3 || n > 5 {
			t.Errorf("%d orders in 20 minutes", n)
		}
	})
}

// With a wrong clock no client waits for the renewal of a certificate that has expired by that
// clock only.
func TestOnDemandWithWrongClock(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var w wishes
		var out bytes.Buffer
		storage := newMemStorage()
		c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) { w.configure(cfg) }}, storage, true, always, testlog.To(&out, slog.LevelWarn))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		cfg, err := c.TLSConfig()
		if err != nil {
			t.Fatal(err)
		}
		old := testtls.Serial(cfg, "a.wanted.example")
		c.orders.clocks.Observe("b", time.Now().Add(-farAhead), time.Now())
		if _, err := c.demands.start("b.wanted.example"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := c.orders.order(t.Context(), "a.wanted.example", true, attempt{}); !errors.As(err, new(*clocks.Error)) {
			t.Errorf("an order: %v", err)
		}
		began := time.Now()
		if got := testtls.Serial(cfg, "a.wanted.example"); got != old || time.Since(began) > 0 {
			t.Errorf("shows %q after %v, want %q at once", got, time.Since(began), old)
		}
		if got := testtls.Serial(cfg, "b.wanted.example"); got != "" {
			t.Errorf("shows %q for what may not be ordered now", got)
		}
	})
}
