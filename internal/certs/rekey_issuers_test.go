package certs

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// The cluster's own authority gets another root, and signs all certificates anew.
func TestRekeyOwnAuthority(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		nodes := []*Certs{devCerts(t, storage, nil), devCerts(t, storage, nil)}
		storage.notify(nodes...)
		configs := manageOn(t, nodes, "a.test", "b.test")
		w := &rekeyWorld{t: t, ca: testca.New(t, testca.Config{Trusting: true}), storage: storage, nodes: nodes, configs: configs}
		w.leak()
		old, err := (&devca.Issuer{Storage: storage}).Root(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stop := w.watch(1, time.Second, "a.test", "b.test")
		// the root is another one by then
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := nodes[0].Rekey(ctx, "17"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a run that was stopped: %v", err)
		}
		next, err := (&devca.Issuer{Storage: storage}).Root(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.rekey(nodes[1], "17")
		stop()
		root, err := (&devca.Issuer{Storage: storage}).Root(t.Context())
		if err != nil || root.Equal(old) || !root.Equal(next) || slices.Equal(root.RawSubjectPublicKeyInfo, old.RawSubjectPublicKeyInfo) {
			t.Errorf("the root was not replaced, or twice: %v", err)
		}
		for i, c := range nodes {
			for _, name := range []string{"a.test", "b.test"} {
				found := c.loader.matching(name)
				if len(found) != 1 || found[0].Leaf.CheckSignatureFrom(root) != nil {
					t.Errorf("node %d: %d certificates of %s, or one of the old root", i, len(found), name)
				}
			}
		}
		w.checkSecrets("17")
		p, err := nodes[1].RekeyProgress(t.Context(), "17")
		if err != nil || !p.Done || p.Rekeyed != 2 || p.Revoked != 2 || !strings.Contains(strings.Join(p.Notes, "\n"), "gets another root") {
			t.Errorf("progress: %+v, %v", p, err)
		}
	})
}

// Each node keeps its certificates to itself. What is left of before in the cluster's storage is
// revoked at once, and the account, which is shared, gets another key.
func TestRekeyPerNode(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		c := w.open(w.storage, "a.example")
		time.Sleep(time.Minute)
		c.Close()
		w.leak()
		w.nodes, w.configs = nil, nil
		own := splitStorage{newMemStorage(), w.storage}
		c, err := openCerts(Policy{CA: w.ca.URL(), Email: rekeyEmail, Configure: stubca.Configure(w.ca, nil)}, own, false, always, nil, offline,
			func(c *Config) { c.Shared = w.storage })
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		w.nodes = append(w.nodes, c)
		cfg, err := c.TLSConfig("a.example")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		mine := testtls.Serial(cfg, "a.example")
		if err := c.Rekey(t.Context(), "17"); err != nil {
			t.Error(err)
		}
		w.check("17")
		if got := testtls.Serial(cfg, "a.example"); got != mine || got == "" {
			t.Errorf("the node's own certificate is %q, before %q", got, mine)
		}
		if _, ok := w.ca.Revoked(mine); ok {
			t.Error("the node's own certificate is revoked")
		}
		p, err := c.RekeyProgress(t.Context(), "17")
		if err != nil || !p.Done || p.Deleted != 1 || !strings.Contains(strings.Join(p.Notes, "\n"), "keeps its certificates to itself") {
			t.Errorf("progress: %+v, %v", p, err)
		}
	})
}

// splitStorage keeps certificates in a storage of the node's own, and the rest in the cluster's.
type splitStorage struct{ own, shared *memStorage }

func (s splitStorage) of(key string) *memStorage {
	if strings.HasPrefix(key, "certificates") || strings.HasPrefix(key, "ocsp") {
		return s.own
	}
	return s.shared
}

func (s splitStorage) Store(ctx context.Context, key string, value []byte) error {
	return s.of(key).Store(ctx, key, value)
}
func (s splitStorage) Load(ctx context.Context, key string) ([]byte, error) {
	return s.of(key).Load(ctx, key)
}
func (s splitStorage) Delete(ctx context.Context, key string) error {
	return s.of(key).Delete(ctx, key)
}
func (s splitStorage) Exists(ctx context.Context, key string) bool { return s.of(key).Exists(ctx, key) }
func (s splitStorage) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	return s.of(dir).List(ctx, dir, recursive)
}
func (s splitStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	return s.of(key).Stat(ctx, key)
}
func (s splitStorage) Lock(ctx context.Context, name string) error { return s.shared.Lock(ctx, name) }
func (s splitStorage) Unlock(ctx context.Context, name string) error {
	return s.shared.Unlock(ctx, name)
}

// The certificates of an authority that no issuer is for any more are replaced by those of the
// present one, and revoked at the former one.
func TestRekeyFormerAuthority(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("known %v", known), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRekeyWorld(t)
				w.ca.SetLifetime(3 * 24 * time.Hour)
				w.open(w.storage, "a.example", "b.example")
				time.Sleep(time.Minute)
				w.leak()
				w.nodes[0].Close()
				w.nodes, w.configs = nil, nil
				former, dir := w.ca, "certificates/"+certmagic.StorageKeys.Safe((&certmagic.ACMEIssuer{CA: w.ca.URL()}).IssuerKey())
				if !known {
					for key := range maps.Clone(w.storage.data) {
						if strings.HasPrefix(key, dir) && strings.HasSuffix(key, ".json") {
							put(t, w.storage, map[string]string{key: `{"sans":["a.example"]}`})
						}
					}
				}
				w.ca = testca.New(t, testca.Config{Trusting: true})
				c, err := openCerts(Policy{CA: w.ca.URL(), Configure: stubca.Configure(w.ca, nil)}, w.storage, false, always, nil, offline,
					func(c *Config) { c.Network = former })
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				w.storage.notify(c)
				cfg, err := c.TLSConfig("a.example", "b.example")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				w.nodes = []*Certs{c}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				err = c.Rekey(ctx, "17")
				if !known {
					text := strings.Join(w.progress("17").Trouble, "\n")
					if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(text, "revoke the certificate there by hand") || !strings.Contains(text, "close the account there") {
						t.Errorf("it has ended: %v\n%s", err, text)
					}
					// A person does the one, and time the other.
					if err := w.storage.Delete(t.Context(), path.Dir(w.account)); err != nil {
						t.Fatal(err)
					}
					ctx, cancel := context.WithTimeout(t.Context(), 4*24*time.Hour)
					defer cancel()
					if err := c.Rekey(ctx, "17"); err != nil {
						t.Errorf("%v\n%s", err, strings.Join(w.progress("17").Trouble, "\n"))
					}
					return
				}
				if err != nil {
					t.Error(err)
				}
				for name, old := range w.leaves {
					if r, ok := former.Revoked(old.SerialNumber.Text(16)); !ok || r.Reason != 1 || !r.ByKey {
						t.Errorf("%s: %+v, %v", name, r, ok)
					}
					if testtls.Serial(cfg, name) == "" {
						t.Errorf("%s has no certificate", name)
					}
				}
				if w.storage.has(dir) {
					t.Error("the former authority's certificates are still there")
				}
				w.account = ""
				w.checkSecrets("17")
			})
		})
	}
}

// A former authority has gone for good. When a person has deleted its account and its certificates
// have expired, nothing is left to do.
func TestRekeyAuthorityIsGone(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		w.ca.SetLifetime(24 * time.Hour)
		c := w.open(w.storage, "a.example")
		time.Sleep(time.Minute)
		c.Close()
		w.leak()
		w.nodes, w.configs = nil, nil
		w.ca = testca.New(t, testca.Config{Trusting: true})
		c, err := openCerts(Policy{CA: w.ca.URL(), Configure: stubca.Configure(w.ca, nil)}, w.storage, false, always, nil, offline, func(c *Config) {
			c.Network = roundTrip(func(*http.Request) (*http.Response, error) { return nil, errInjected })
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		w.nodes = []*Certs{c}
		w.storage.notify(c)
		manageOn(t, w.nodes, "a.example")
		ended := make(chan error, 1)
		go func() { ended <- c.Rekey(t.Context(), "17") }()
		time.Sleep(time.Hour)
		if text := strings.Join(w.progress("17").Trouble, "\n"); !strings.Contains(text, "delete "+path.Dir(w.account)) {
			t.Errorf("it does not say what to do:\n%s", text)
		}
		if err := w.storage.Delete(t.Context(), path.Dir(w.account)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(48 * time.Hour)
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Fatalf("not done: %+v", w.progress("17"))
		}
	})
}

// An issuer without ACME revokes by itself, if it can.
func TestRekeyOtherIssuer(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c, i := withRevoker(t, func() error { return nil })
		old := c.Status()[0].Serial
		if err := c.Rekey(t.Context(), "17"); err != nil {
			t.Error(err)
		}
		if len(i.reasons) != 1 || i.reasons[old] != 1 {
			t.Errorf("revoked: %v, want %s", i.reasons, old)
		}
	})
}

// revoker is an issuer that revokes.
type revoker struct {
	stubca.Issuer
	reasons map[string]int
}

// withRevoker opens Certs that have a certificate of such an issuer. fails decides on its orders.
func withRevoker(t *testing.T, fails func() error) (*Certs, *revoker) {
	t.Helper()
	storage := newMemStorage()
	i := &revoker{Issuer: stubca.Issuer{Issuer: devca.Issuer{Storage: storage}, Fails: fails}}
	c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
		cfg.Issuers = []certmagic.Issuer{i}
	}}, storage, false, always, nil, offline)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	storage.notify(c)
	manageOn(t, []*Certs{c}, "a.test")
	return c, i
}

func (i *revoker) IssuerKey() string { return "in-house" }

func (i *revoker) Revoke(_ context.Context, c certmagic.CertificateResource, reason int) error {
	block, _ := pem.Decode(c.CertificatePEM)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	if i.reasons == nil {
		i.reasons = make(map[string]int)
	}
	i.reasons[leaf.SerialNumber.Text(16)] = reason
	return nil
}

// A thousand certificates cost a bounded number of writes each.
func TestRekeyMany(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	count := cases(t, 1000, 100)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		names := stubca.Names("many", count)
		w.open(w.storage, names...)
		time.Sleep(time.Duration(count)*time.Second + time.Minute)
		w.leak()
		var mu sync.Mutex
		writes := make(map[string]int)
		w.storage.denyAll(func(op, key string) error {
			mu.Lock()
			defer mu.Unlock()
			if op == "load" || op == "store" {
				writes[op]++
			}
			return nil
		})
		began := time.Now()
		w.rekey(w.nodes[0], "17")
		took := time.Since(began)
		w.storage.denyAll(nil)
		w.check("17", names...)
		mu.Lock()
		defer mu.Unlock()
		t.Logf("%d certificates: %v, %d loads, %d stores", count, took, writes["load"], writes["store"])
		if n := writes["store"]; n > 10*count || writes["load"] > 60*count {
			t.Errorf("%d stores and %d loads", n, writes["load"])
		}
		if limit := time.Duration(count)*time.Second*11/10 + 2*time.Minute; took > limit {
			t.Errorf("it took %v, want %v: the limit of orders", took, limit)
		}
	})
}
