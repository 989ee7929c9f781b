package certs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/quarantine"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// Names on demand are ordered if the program still wants them, also those that no node has loaded.
// Names that nobody wants are revoked and deleted. A name that only another node serves is ordered
// by that one.
func TestRekeyNames(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		wanted := map[string]bool{"loaded.example": true, "resting.example": true, "unwanted.example": true}
		w := newRekeyWorld(t)
		w.more = func(cfg *certmagic.Config) {
			cfg.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: func(_ context.Context, name string) error {
				mu.Lock()
				defer mu.Unlock()
				if !wanted[name] {
					return errors.New("not a customer")
				}
				return nil
			}}
		}
		before := w.open(w.storage, "home.example", "former.example", "moving.example")
		for name := range wanted {
			if testtls.Serial(w.configs[0], name) == "" {
				t.Fatalf("no certificate for %s", name)
			}
		}
		time.Sleep(time.Minute)
		before.Close()
		w.nodes, w.configs = nil, nil
		w.open(w.storage, "home.example")
		other := w.open(w.storage, "home.example", "moving.example")
		time.Sleep(time.Minute)
		testtls.Serial(w.configs[0], "loaded.example")
		w.leak()
		mu.Lock()
		wanted["unwanted.example"] = false
		mu.Unlock()
		stop := w.watch(0, 10*time.Second, "home.example", "loaded.example")
		moving := testtls.Serial(w.configs[1], "moving.example")
		ended := make(chan error, 1)
		go func() { ended <- w.nodes[0].Rekey(t.Context(), "17") }()
		time.Sleep(5 * time.Minute)
		trouble := strings.Join(w.progress("17").Trouble, "\n")
		for _, want := range []string{"former.example (ca-", "unwanted.example (ca-", "not a customer", "no node is known to serve the name", "revoked and deleted"} {
			if !strings.Contains(trouble, want) {
				t.Errorf("the trouble does not say %q:\n%s", want, trouble)
			}
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		stop()
		if got := testtls.Serial(w.configs[1], "moving.example"); got == "" || got == moving {
			t.Errorf("what another node serves: %q, before %q", got, moving)
		}
		w.configs[0], w.configs[1] = nil, nil // what each serves differs
		w.check("17", "home.example", "loaded.example", "resting.example", "moving.example")
		if p := w.progress("17"); p.Certificates != 6 || p.Rekeyed != 4 || p.Deleted != 2 || p.Revoked != 6 {
			t.Errorf("progress: %+v", p)
		}
		if n := len(w.ca.Placed("")); n != 6+4 {
			t.Errorf("%d orders, want six and four more", n)
		}
		if s := other.Status(); len(s) != 2 || s[1].Err != nil {
			t.Errorf("status: %+v", s)
		}
	})
}

// A name that only another node serves is not revoked while that node may not order it, or while
// the order is under way.
func TestRekeyWaitsForOthers(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	for _, limited := range []bool{true, false} {
		t.Run(fmt.Sprintf("limited %v", limited), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRekeyWorld(t)
				w.open(w.storage, "home.example")
				w.open(w.storage, "home.example", "moving.example")
				time.Sleep(time.Minute)
				w.leak()
				old := w.leaves["moving.example"].SerialNumber.Text(16)
				until := time.Now().Add(time.Hour)
				var hold sync.Once
				w.ca.Refuse(func(r testca.Request) *testca.Refusal {
					if _, revoked := w.ca.Revoked(old); revoked && testtls.Serial(w.configs[1], "moving.example") == old {
						t.Error("a certificate is revoked that is served")
					}
					switch {
					case r.Op != "order" || r.Names[0] != "moving.example":
					case limited && time.Now().Before(until):
						return testca.Problem(429, "rateLimited", "not now", "3600")
					case !limited:
						hold.Do(func() { time.Sleep(4 * time.Minute) })
					}
					return nil
				})
				w.rekey(w.nodes[0], "17")
				w.configs[0] = nil
				w.check("17", "home.example", "moving.example")
				if p := w.progress("17"); p.Deleted != 0 {
					t.Errorf("progress: %+v", p)
				}
			})
		})
	}
}

// The program is asked about a few names on demand at a time. One that does not answer holds up
// nothing for ever.
func TestRekeyAsksAFew(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var asked, most, hang atomic.Int64
		w := newRekeyWorld(t)
		w.more = func(cfg *certmagic.Config) {
			cfg.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: func(ctx context.Context, _ string) error {
				defer asked.Add(-1)
				most.Store(max(most.Load(), asked.Add(1)))
				if hang.Add(-1) >= 0 {
					<-ctx.Done()
				}
				time.Sleep(time.Second)
				return ctx.Err()
			}}
		}
		names := append(stubca.Names("many", 60), "home.example")
		before := w.open(w.storage, names...)
		time.Sleep(5 * time.Minute)
		before.Close()
		w.nodes, w.configs = nil, nil
		w.open(w.storage, "home.example")
		time.Sleep(time.Minute)
		w.leak()
		hang.Store(20)
		w.rekey(w.nodes[0], "17")
		w.configs = nil
		w.check("17", names...)
		if n := most.Load(); n > 2*16 { // for the list, and before an order
			t.Errorf("it was asked about %d names at a time", n)
		}
	})
}

// A node that serves no names does not know whether another one does, and deletes nothing.
func TestRekeyServesNothing(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		w.open(w.storage, "a.example")
		time.Sleep(time.Minute)
		w.leak()
		c, err := openCerts(policyOf(w.ca, nil), w.storage, false, always, nil, offline)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		if err := c.Rekey(ctx, "17"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it has ended: %v", err)
		}
		if p := w.progress("17"); len(p.Trouble) != 1 || !strings.Contains(p.Trouble[0], "let a node lead that serves them") {
			t.Errorf("progress: %+v", p)
		}
		w.rekey(w.nodes[0], "17")
		w.check("17", "a.example")
	})
}

// An expired certificate needs no revocation. If somebody wants the name, it gets another one.
func TestRekeyExpired(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		w.ca.SetLifetime(24 * time.Hour)
		c := w.open(w.storage, "a.example", "former.example")
		time.Sleep(time.Minute)
		c.Close()
		w.leak()
		time.Sleep(48 * time.Hour)
		w.ca.SetLifetime(90 * 24 * time.Hour)
		w.nodes, w.configs = nil, nil
		w.open(w.storage, "a.example")
		w.rekey(w.nodes[0], "17")
		w.check("17", "a.example")
		if n := w.ca.Asked("revoke"); n != 0 {
			t.Errorf("%d revocations", n)
		}
	})
}

// A certificate has expired, and no other one can be ordered for its name: nothing is left to do.
func TestRekeyExpiredAndRefused(t *testing.T) {
	onlyLong(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var refused error
		c, i := withRevoker(t, func() error { return refused })
		refused = errInjected
		ctx, cancel := context.WithTimeout(t.Context(), devca.LeafLife+2*time.Hour)
		defer cancel()
		if err := c.Rekey(ctx, "17"); err != nil {
			t.Error(err)
		}
		if len(i.reasons) != 0 {
			t.Errorf("revoked: %v", i.reasons)
		}
	})
}

// TLS.Configure has keys used again for ever. This time they are not.
func TestRekeyReusedKeys(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		w.more = func(cfg *certmagic.Config) { cfg.ReusePrivateKeys = true }
		for range 2 {
			w.open(w.storage, "a.example")
		}
		time.Sleep(time.Minute)
		w.leak()
		w.rekey(w.nodes[0], "17")
		w.check("17", "a.example")
	})
}

// Copies of keys that were put aside go too, and the certificates among them are revoked.
func TestRekeyCopies(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRekeyWorld(t)
		w.open(w.storage, "a.example")
		time.Sleep(time.Minute)
		w.leak()
		stem := strings.TrimSuffix(certmagic.StorageKeys.SiteCert(w.issuer(), "a.example"), ".crt")
		first := w.leaves["a.example"]
		aside := quarantine.Place + "/20000101T000000.000Z/"
		copies := make(map[string]string)
		for _, ext := range []string{".crt", ".key"} {
			text, err := w.storage.Load(t.Context(), stem+ext)
			if err != nil {
				t.Fatal(err)
			}
			copies[aside+stem+ext] = string(text)
		}
		copies[aside+stem+".json"] = "{"
		copies[aside+"certificates/x/y/y.crt"] = "garbage"
		copies[stem+".key.compromised"] = copies[aside+stem+".key"]
		put(t, w.storage, copies)
		if err := w.nodes[0].orders.order(t.Context(), "a.example", true, attempt{}); err != nil {
			t.Fatal(err)
		}
		secrets := maps.Clone(w.secrets)
		w.leak()
		maps.Copy(w.secrets, secrets)
		w.rekey(w.nodes[0], "17")
		w.check("17", "a.example")
		if r, ok := w.ca.Revoked(first.SerialNumber.Text(16)); !ok || r.Reason != 1 {
			t.Errorf("the certificate of the copy: %+v, %v", r, ok)
		}
		if !w.storage.has(aside+stem+".json") || w.storage.has(stem+".key.compromised") {
			t.Error("too much was deleted, or too little")
		}
	})
}
