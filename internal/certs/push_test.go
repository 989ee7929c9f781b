package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// nodesOf returns the certificates of n nodes on one storage, as devCerts does.
func nodesOf(t *testing.T, n int, storage *memStorage, issued *atomic.Int64) []*Certs {
	t.Helper()
	nodes := make([]*Certs, n)
	for i := range nodes {
		nodes[i] = devCerts(t, storage, issued)
	}
	return nodes
}

// manageOn has each node serve domains, and waits until they all do.
func manageOn(t *testing.T, nodes []*Certs, domains ...string) []*tls.Config {
	t.Helper()
	configs := make([]*tls.Config, len(nodes))
	for i, c := range nodes {
		var err error
		if configs[i], err = c.TLSConfig(domains...); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(orderJitter)
	synctest.Wait()
	for _, c := range nodes {
		settle(t, c)
	}
	return configs
}

// inStorage returns the serial number of the certificate that the storage has for name.
func inStorage(t *testing.T, storage *memStorage, name string) string {
	t.Helper()
	c := devCerts(t, storage, nil)
	defer c.Close()
	if err := c.loader.refresh(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return c.loader.matching(name)[0].Leaf.SerialNumber.Text(16)
}

func TestForcedRenewalIsServedByAllNodes(t *testing.T) {
	synctest.Parallel(t)
	for _, tc := range []struct {
		name     string
		notified bool
		wait     time.Duration
	}{
		{"notified", true, time.Millisecond},
		{"not notified", false, time.Hour}, // certmagic does nothing: this is what being notified is for
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				storage := newMemStorage()
				nodes := nodesOf(t, 3, storage, nil)
				names := []string{"one.forced.example", "*.forced.example"}
				asked := []string{"one.forced.example", "x.forced.example"}
				configs := manageOn(t, nodes, names...)
				if tc.notified {
					storage.notify(nodes...)
				}
				for i, name := range names {
					want := []string{testtls.Serial(configs[1], asked[0]), testtls.Serial(configs[1], asked[1])}
					if err := nodes[0].loader.config.RenewCertSync(t.Context(), name, true); err != nil {
						t.Fatal(err)
					}
					renewed := inStorage(t, storage, name)
					if renewed == want[i] || want[i] == "" {
						t.Fatalf("renewed %q to %q", want[i], renewed)
					}
					if tc.notified {
						want[i] = renewed
					}
					time.Sleep(tc.wait)
					for n, c := range nodes {
						if got := []string{testtls.Serial(configs[n], asked[0]), testtls.Serial(configs[n], asked[1])}; !slices.Equal(got, want) {
							t.Errorf("%s: node %d shows %v, want %v", name, n, got, want)
						}
						if n := len(c.loader.matching(asked[0])); n != 2 {
							t.Errorf("%d certificates are in memory, want 2", n)
						}
					}
				}
			})
		})
	}
}

// certmagic deletes a certificate that it has revoked part by part: it is ordered once.
func TestDeletedCertificateIsOrderedOnce(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var issued atomic.Int64
		storage := newMemStorage()
		nodes := nodesOf(t, 3, storage, &issued)
		configs := manageOn(t, nodes, "revoked.example")
		storage.notify(nodes...)
		old := testtls.Serial(configs[0], "revoked.example")
		for _, key := range []string{
			certmagic.StorageKeys.SiteCert(keyspace.DevIssuer, "revoked.example"),
			certmagic.StorageKeys.SitePrivateKey(keyspace.DevIssuer, "revoked.example"),
			certmagic.StorageKeys.SiteMeta(keyspace.DevIssuer, "revoked.example"),
			certmagic.StorageKeys.CertsSitePrefix(keyspace.DevIssuer, "revoked.example"),
		} {
			time.Sleep(100 * time.Millisecond)
			if err := storage.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		for i, cfg := range configs {
			if got := testtls.Serial(cfg, "revoked.example"); got != old {
				t.Errorf("node %d shows %q before there is another, want %s", i, got, old)
			}
		}
		time.Sleep(deleteSettle + orderJitter)
		synctest.Wait()
		if issued.Load() != 2 {
			t.Errorf("%d certificates were ordered, want one and one more", issued.Load())
		}
		want := inStorage(t, storage, "revoked.example")
		for i, cfg := range configs {
			if got := testtls.Serial(cfg, "revoked.example"); got != want || got == old {
				t.Errorf("node %d shows %s, want %s", i, got, want)
			}
			if s := nodes[i].Status()[0]; s.Err != nil || !s.Managed {
				t.Errorf("node %d: %+v", i, s)
			}
		}
	})
}

// A certificate that is deleted between the obtainer's last look and its end is ordered again.
func TestDeletedAtTheLastMoment(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var once sync.Once
		storage := newMemStorage()
		key := certmagic.StorageKeys.CertsSitePrefix(keyspace.DevIssuer, "late.example")
		hook := func(_ []string, a slog.Attr) slog.Attr {
			if a.Value.String() == "certificate is being served" {
				once.Do(func() {
					storage.Delete(context.Background(), key)
					synctest.Wait() // it was notified
				})
			}
			return a
		}
		c, err := openCerts(Policy{}, storage, true, always, slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{ReplaceAttr: hook})))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		storage.notify(c)
		cfg, err := c.TLSConfig("late.example")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got, want := testtls.Serial(cfg, "late.example"), inStorage(t, storage, "late.example"); got != want {
			t.Errorf("shows %s, want %s", got, want)
		}
	})
}

// A node that was away serves the newest certificate after a snapshot, as soon as it can be read.
func TestPushAfterSnapshotIsTriedAgain(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		nodes := nodesOf(t, 2, storage, nil)
		configs := manageOn(t, nodes, "a.example", "b.example")
		old := testtls.Serial(configs[1], "a.example")
		for _, name := range []string{"a.example", "b.example"} {
			if err := nodes[0].loader.config.RenewCertSync(t.Context(), name, true); err != nil {
				t.Fatal(err)
			}
		}
		storage.denyAll(func(op, key string) error {
			if op == "load" && strings.Contains(key, "a.example.crt") {
				return errInjected
			}
			return nil
		})
		nodes[1].StoredAny()
		synctest.Wait()
		if got, want := testtls.Serial(configs[1], "b.example"), inStorage(t, storage, "b.example"); got != want {
			t.Errorf("shows %s, want %s: one name keeps another", got, want)
		}
		s := nodes[1].Status()[0]
		if s.Domain != "a.example" || !errors.Is(s.Err, errInjected) || !s.Managed || s.Serial != old {
			t.Errorf("status when the newest cannot be loaded: %+v", s)
		}
		time.Sleep(time.Hour)
		storage.denyAll(nil)
		time.Sleep(pushLimit)
		synctest.Wait()
		s = nodes[1].Status()[0]
		if want := inStorage(t, storage, "a.example"); s.Err != nil || s.Serial != want || testtls.Serial(configs[1], "a.example") != want {
			t.Errorf("status: %+v, want serial %s", s, want)
		}
	})
}

func TestPushesAreCoalesced(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		nodes := nodesOf(t, 1, storage, nil)
		manageOn(t, nodes, "busy.example", "idle.example")
		var looks atomic.Int64
		gate := make(chan struct{})
		storage.denyAll(func(op, key string) error {
			if op == "load" && strings.HasSuffix(key, "busy.example.key") {
				looks.Add(1)
				<-gate
			}
			return nil
		})
		nodes[0].Stored("busy.example")
		synctest.Wait()
		if err := nodes[0].loader.refresh(t.Context(), "idle.example"); err != nil {
			t.Error(err) // it would not return if it waited for the other
		}
		for range 1000 { // blocks for none of them
			nodes[0].Stored("busy.example")
			nodes[0].Stored("unknown.example")
			nodes[0].StoredAny()
		}
		go nodes[0].loader.refresh(t.Context(), "busy.example")
		synctest.Wait()
		if looks.Load() != 1 {
			t.Errorf("%d looks at the same time", looks.Load())
		}
		close(gate)
		synctest.Wait()
		if looks.Load() != 3 {
			t.Errorf("%d looks in all, want 3: the first, one for all that were notified, and one by hand", looks.Load())
		}
	})
}

// An expired certificate that a backup brings back does not replace a valid one.
func TestExpiredCertificateReplacesNone(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		nodes := nodesOf(t, 1, storage, nil)
		configs := manageOn(t, nodes, "backup.example")
		storage.mu.Lock()
		backup := maps.Clone(storage.data)
		storage.mu.Unlock()
		time.Sleep(devca.LeafLife - time.Hour)
		want := testtls.Serial(configs[0], "backup.example") // renewed meanwhile
		time.Sleep(2 * time.Hour)
		storage.mu.Lock()
		storage.data = backup
		storage.mu.Unlock()
		nodes[0].StoredAny()
		synctest.Wait()
		if got := testtls.Serial(configs[0], "backup.example"); got != want || want == "" {
			t.Errorf("shows %q, want %q", got, want)
		}
	})
}

// onDemand returns certificates of the development CA that handshakes order.
func onDemand(t *testing.T, storage *memStorage, asked *atomic.Int64) (*Certs, *tls.Config) {
	t.Helper()
	c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
		cfg.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: func(context.Context, string) error {
			asked.Add(1)
			return nil
		}}
	}}, storage, true, always, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cfg, err := c.TLSConfig()
	if err != nil {
		t.Fatal(err)
	}
	return c, cfg
}

func TestPushOnDemand(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		storage := newMemStorage()
		a, aConfig := onDemand(t, storage, &asked)
		b, bConfig := onDemand(t, storage, &asked)
		storage.notify(a, b)
		first := testtls.Serial(aConfig, "demand.example")
		if got := testtls.Serial(bConfig, "demand.example"); got != first || first == "" {
			t.Fatalf("shows %q and %q", first, got)
		}
		if err := a.loader.config.RenewCertSync(t.Context(), "demand.example", true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) // what was seen half-written is looked at again
		second, want := testtls.Serial(bConfig, "demand.example"), inStorage(t, storage, "demand.example")
		if second != want || second == first {
			t.Errorf("shows %s after a forced renewal, want %s", second, want)
		}
		before := asked.Load()
		if err := storage.Delete(t.Context(), certmagic.StorageKeys.CertsSitePrefix(keyspace.DevIssuer, "demand.example")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		third := testtls.Serial(bConfig, "demand.example")
		if third == second || third == "" || asked.Load() == before {
			t.Errorf("shows %q after a deletion, and was asked %d times; before %q", third, asked.Load()-before, second)
		}
		time.Sleep(10 * time.Second)
		if got := testtls.Serial(aConfig, "demand.example"); got != third {
			t.Errorf("the other node shows %q, want %q", got, third)
		}
		synctest.Wait()
		if len(a.loader.names.sites) != 1 || len(b.loader.names.sites) != 1 {
			t.Errorf("sites: %v, %v", a.loader.names.sites, b.loader.names.sites)
		}
	})
}

// Names that can be written in several ways are stored in one form.
func TestOneFormOfEachName(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var issued atomic.Int64
		storage := newMemStorage()
		nodes := nodesOf(t, 2, storage, &issued)
		manageOn(t, nodes, "BÜCHER.example", "2001:DB8:0:0:0::1", "::ffff:192.0.2.1")
		if issued.Load() != 3 {
			t.Errorf("%d certificates were ordered for three names", issued.Load())
		}
		var got []string
		for _, s := range nodes[1].Status() {
			got = append(got, s.Domain)
		}
		if want := []string{"192.0.2.1", "2001:db8::1", "xn--bcher-kva.example"}; !slices.Equal(got, want) {
			t.Errorf("names: %q, want %q", got, want)
		}
	})
}

// What the storage has is served at once. Nodes pause only before orders.
func TestJitterBeforeOrdersOnly(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		nodes := nodesOf(t, 2, storage, nil)
		at := time.Now()
		var waits []time.Duration
		for range 8 {
			name := string(rune('a'+len(waits))) + ".example"
			if _, err := nodes[0].TLSConfig(name); err != nil {
				t.Fatal(err)
			}
			nodes[0].obtainer.work.Wait()
			waits = append(waits, time.Since(at))
			at = time.Now()
			if _, err := nodes[1].TLSConfig(name); err != nil {
				t.Fatal(err)
			}
			nodes[1].obtainer.work.Wait()
			if d := time.Since(at); d != 0 {
				t.Errorf("what is in the storage was served after %v", d)
			}
		}
		if slices.Max(waits) >= orderJitter || slices.Min(waits) == slices.Max(waits) {
			t.Errorf("orders were placed after %v", waits)
		}
	})
}

// A try ends even if the lock of the name is held, and the next one succeeds.
func TestOrderIsBounded(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		nodes := nodesOf(t, 1, storage, nil)
		if err := storage.Lock(t.Context(), "issue_cert_held.example"); err != nil {
			t.Fatal(err)
		}
		if _, err := nodes[0].TLSConfig("held.example"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(orderTimeout + orderJitter)
		synctest.Wait()
		if s := nodes[0].Status()[0]; !errors.Is(s.Err, errOrderTimeout) {
			t.Errorf("status: %+v", s)
		}
		if err := storage.Unlock(t.Context(), "issue_cert_held.example"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lookInterval)
		settle(t, nodes[0])
	})
}

// A failed renewal is in the status while the certificate is valid.
func TestFailedRenewalShowsInStatus(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		refuse := errors.New("refused")
		var broken atomic.Bool
		storage := newMemStorage()
		c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
			cfg.Issuers = []certmagic.Issuer{&stubca.Issuer{Issuer: devca.Issuer{Storage: storage}, Fails: func() error {
				if broken.Load() {
					return refuse
				}
				return nil
			}}}
		}}, storage, true, always, testlog.To(&out, slog.LevelWarn))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		manageOn(t, []*Certs{c}, "fails.example")
		storage.notify(c)
		broken.Store(true)
		time.Sleep(devca.LeafLife - 24*time.Hour)
		if s := c.Status()[0]; !errors.Is(s.Err, refuse) || !s.Managed {
			t.Errorf("status when renewals fail: %+v", s)
		}
		broken.Store(false)
		time.Sleep(7 * time.Hour) // certmagic's longest pause
		if s := c.Status()[0]; s.Err != nil || !s.Managed || time.Until(s.NotAfter) < devca.LeafLife-8*time.Hour {
			t.Errorf("status after a renewal: %+v", s)
		}
		if err := c.loader.refresh(t.Context(), "none.example"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("refresh of an unknown name: %v", err)
		}
	})
}
