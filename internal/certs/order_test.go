package certs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/slots"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// recordedNodes returns the certificates of n nodes whose orders are recorded in placed.
func recordedNodes(t *testing.T, n int, storage *memStorage, placed *stubca.Orders, l *slog.Logger) []*Certs {
	t.Helper()
	nodes := make([]*Certs, n)
	for i := range nodes {
		c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
			cfg.Issuers = []certmagic.Issuer{&stubca.Issuer{Issuer: devca.Issuer{Storage: storage}, Fails: placed.Place}}
		}}, storage, true, always, l)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		nodes[i] = c
	}
	return nodes
}

// startAll has all nodes serve names at the same moment.
func startAll(t *testing.T, nodes []*Certs, names ...string) {
	t.Helper()
	for _, c := range nodes {
		if _, err := c.TLSConfig(names...); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOneOrderForEachName(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	for _, notified := range []bool{true, false} {
		t.Run(fmt.Sprintf("notified %v", notified), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var placed stubca.Orders
				storage := newMemStorage()
				nodes := recordedNodes(t, 3, storage, &placed, nil)
				if notified {
					storage.notify(nodes...)
				}
				startAll(t, nodes, stubca.Names("once", 20)...)
				time.Sleep(time.Minute)
				synctest.Wait()
				placed.Check(t, 20)
				for _, c := range nodes {
					settle(t, c)
				}
			})
		})
	}
}

func TestOrdersAreLimited(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		placed := stubca.Orders{Fail: func(nth int) error {
			if nth%7 == 0 && nth < 50 {
				return errInjected // and the next try is an order as well
			}
			return nil
		}}
		var out bytes.Buffer
		storage := newMemStorage()
		nodes := recordedNodes(t, 3, storage, &placed, testlog.To(&out, slog.LevelWarn))
		storage.notify(nodes...)
		for i, c := range nodes {
			startAll(t, []*Certs{c}, stubca.Names("own"+fmt.Sprint(i)+"x", 15)...)
		}
		startAll(t, nodes, "common.example")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		placed.Check(t, 46+7) // names and retries
		if d := placed.Took(); d > 80*time.Second {
			t.Errorf("53 orders took %v", d)
		}
		for i := range 12 { // renewals count
			go nodes[i%3].loader.config.RenewCertSync(t.Context(), fmt.Sprintf("own%dx%d.example", i%3, i/3), true)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := nodes[0].loader.config.RenewCertSync(t.Context(), "common.example", true); err != nil {
			t.Fatal(err)
		}
		placed.Check(t, 46+7+12+1)
		for _, c := range nodes {
			settle(t, c)
		}
		at := time.Now()
		for _, c := range nodes {
			c.Close()
		}
		if d := time.Since(at); d > 0 {
			t.Errorf("close took %v", d)
		}
		for i := range 10 {
			if free, err := storage.TryLock(t.Context(), slots.Name(i)); !free || err != nil {
				t.Errorf("slot %d is held after close: %v", i, err)
			}
		}
		if strings.Contains(out.String(), "without regard") {
			t.Errorf("the limit was passed over:\n%s", out.String())
		}
	})
}

// A long queue is not a failed try.
func TestManyOrdersWait(t *testing.T) {
	synctest.Parallel(t)
	skipShort(t)
	synctest.Test(t, func(t *testing.T) {
		const names = 330 // the last one waits longer than a try may take
		var out bytes.Buffer
		var placed stubca.Orders
		nodes := recordedNodes(t, 1, newMemStorage(), &placed, testlog.To(&out, slog.LevelWarn))
		startAll(t, nodes, stubca.Names("many", names)...)
		time.Sleep(orderTimeout + 40*time.Second)
		synctest.Wait()
		placed.Check(t, names)
		settle(t, nodes[0])
		if out.Len() > 0 {
			t.Errorf("logged:\n%.500s", out.String())
		}
	})
}

func TestSlotsThatAreStuck(t *testing.T) {
	synctest.Parallel(t)
	for _, tc := range []struct {
		name   string
		stuck  int // slots that a node took along when it died, and that nobody frees
		deny   func(op, key string) error
		names  int
		within time.Duration
		warns  bool
	}{
		{"all but one", 9, nil, 6, 10 * time.Minute, false},
		{"all", 10, nil, 1, slots.StorageWait/2 + slots.MaxWindows*10*time.Second + slots.Pause, true},
		{"storage fails", 0, func(op, key string) error {
			if op == "lock" && strings.HasPrefix(key, "order_slot_") {
				return errInjected
			}
			return nil
		}, 1, slots.StorageWait/2 + slots.Pause, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				var placed stubca.Orders
				storage := newMemStorage()
				storage.denyAll(tc.deny)
				for i := range tc.stuck {
					if err := storage.Lock(t.Context(), slots.Name(i)); err != nil {
						t.Fatal(err)
					}
				}
				nodes := recordedNodes(t, 2, storage, &placed, testlog.To(&out, slog.LevelWarn))
				startAll(t, nodes, stubca.Names("stuck", tc.names)...)
				time.Sleep(slots.StorageWait / 2)
				if n := placed.Count(); tc.warns && n > 0 {
					t.Errorf("%d orders at once", n)
				}
				time.Sleep(tc.within)
				synctest.Wait()
				placed.Check(t, tc.names)
				for _, c := range nodes {
					settle(t, c)
				}
				if got := strings.Contains(out.String(), "without regard to the limit"); got != tc.warns {
					t.Errorf("warned: %v, want %v:\n%.500s", got, tc.warns, out.String())
				}
			})
		})
	}
}

// It is not parallel, because certmagic's limit is a variable of the package.
func TestOrdersWithoutLimit(t *testing.T) {
	atOnce := func(t *testing.T, c *Certs) {
		t.Helper()
		at := time.Now()
		startAll(t, []*Certs{c}, stubca.Names("free", 25)...)
		settle(t, c)
		if d := time.Since(at); d >= orderJitter {
			t.Errorf("25 orders took %v", d)
		}
	}
	t.Run("development CA", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { atOnce(t, devCerts(t, newMemStorage(), nil)) })
	})
	t.Run("switched off", func(t *testing.T) {
		defer func(n int) { certmagic.RateLimitEvents = n }(certmagic.RateLimitEvents)
		certmagic.RateLimitEvents = 0
		synctest.Test(t, func(t *testing.T) { atOnce(t, recordedNodes(t, 1, newMemStorage(), new(stubca.Orders), nil)[0]) })
	})
}

// TLS.Configure's OnEvent gets every event and may veto an order, which then does not count.
func TestEventsReachTheUser(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var veto atomic.Bool
		var mu sync.Mutex
		var heard []string
		storage := newMemStorage()
		c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
			cfg.Issuers = []certmagic.Issuer{&stubca.Issuer{Issuer: devca.Issuer{Storage: storage}, Fails: func() error { return nil }}}
			cfg.OnEvent = func(_ context.Context, event string, _ map[string]any) error {
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, event)
				if event == "cert_obtaining" && veto.Load() {
					return errInjected
				}
				return nil
			}
		}}, storage, true, always, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		veto.Store(true)
		startAll(t, []*Certs{c}, "vetoed.example")
		time.Sleep(orderJitter)
		synctest.Wait()
		if s := c.Status()[0]; !errors.Is(s.Err, errInjected) {
			t.Errorf("status: %+v", s)
		}
		for i := range 10 {
			if len(storage.lock(slots.Name(i))) != 0 {
				t.Errorf("slot %d is held for an order that was vetoed", i)
			}
		}
		veto.Store(false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		settle(t, c)
		if dev := devCerts(t, storage, nil); dev.loader.config.ShouldEmitFunc("tls_get_certificate") || c.loader.config.ShouldEmitFunc != nil {
			t.Error("handshakes make events for nobody, or not for the user")
		}
		for _, event := range []string{"cert_obtaining", "cert_obtained", "cached_managed_cert"} {
			if !slices.Contains(heard, event) {
				t.Errorf("%s was not heard: %v", event, heard)
			}
		}
	})
}
