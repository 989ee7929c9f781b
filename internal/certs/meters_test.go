package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/google/go-cmp/cmp"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// counted returns the counters that are not zero, by their labels.
func counted(c *meter.Counters) map[string]uint64 {
	out := make(map[string]uint64)
	for _, l := range c.List() {
		if l.Count > 0 {
			out[strings.Join(l.Values, " ")] = l.Count
		}
	}
	return out
}

// Each order is counted once, by its issuer, what it was for, and how it ended.
func TestOrdersAreCounted(t *testing.T) {
	synctest.Parallel(t)
	const name = "a.example"
	full := func(storage *memStorage) func(op, key string) error {
		return func(op, key string) error {
			if op == "store" && strings.HasPrefix(key, "certificates/") {
				return errInjected
			}
			return nil
		}
	}
	type world struct {
		ca      *testca.Authority
		storage *memStorage
		nodes   []*Certs
	}
	for _, test := range []struct {
		name  string
		nodes int
		more  func(*certmagic.Config)
		run   func(t *testing.T, w *world)
		want  map[string]uint64 // without the issuer, over all nodes
	}{
		{name: "obtain", run: func(*testing.T, *world) {}, want: map[string]uint64{"obtain ok": 1}},
		{name: "obtain, refused", run: func(_ *testing.T, w *world) {
			w.ca.Refuse(func(r testca.Request) *testca.Refusal {
				if r.Op != "order" {
					return nil
				}
				return testca.Problem(403, "rejectedIdentifier", "no", "")
			})
		}, want: map[string]uint64{"obtain refused": 1}},
		{name: "obtain, not by the authority's fault", more: func(cfg *certmagic.Config) {
			cfg.Issuers = []certmagic.Issuer{&stubca.Issuer{Fails: func() error { return errInjected }}}
		}, run: func(*testing.T, *world) {}, want: map[string]uint64{"obtain failed": 1}},
		{name: "obtain, no room to store", run: func(_ *testing.T, w *world) { w.storage.denyAll(full(w.storage)) }, want: map[string]uint64{"obtain failed": 1}},
		{name: "obtain, by one of several", nodes: 3, run: func(*testing.T, *world) {}, want: map[string]uint64{"obtain ok": 1, "obtain elsewhere": 2}},
		{name: "obtain, vetoed", more: func(cfg *certmagic.Config) {
			cfg.OnEvent = func(_ context.Context, event string, _ map[string]any) error {
				if event == "cert_obtaining" {
					return errInjected
				}
				return nil
			}
		}, run: func(*testing.T, *world) {}, want: map[string]uint64{}},
		{name: "renew", run: func(t *testing.T, w *world) {
			startAll(t, w.nodes, name)
			time.Sleep(time.Second)
			settle(t, w.nodes[0])
			if err := w.nodes[0].orders.order(t.Context(), name, true, attempt{again: true}); err != nil {
				t.Error(err)
			}
		}, want: map[string]uint64{"obtain ok": 1, "renew ok": 1}},
		{name: "renew, by certmagic, with no room to store", run: func(t *testing.T, w *world) {
			startAll(t, w.nodes, name)
			time.Sleep(time.Second)
			settle(t, w.nodes[0])
			w.storage.denyAll(full(w.storage))
			for range 2 { // the first is counted when the second begins
				second := 1
				ctx := context.WithValue(t.Context(), certmagic.AttemptsCtxKey, &second)
				if err := w.nodes[0].loader.config.RenewCertSync(ctx, name, true); err == nil || !strings.Contains(err.Error(), "saving assets") {
					t.Errorf("a renewal: %v", err)
				}
			}
		}, want: map[string]uint64{"obtain ok": 1, "renew failed": 1}},
		{name: "renew, refused", run: func(t *testing.T, w *world) {
			startAll(t, w.nodes, name)
			time.Sleep(time.Second)
			settle(t, w.nodes[0])
			w.ca.Limit(testca.NewOrder, time.Hour)
			if err := w.nodes[0].orders.order(t.Context(), name, true, attempt{}); !errors.As(err, new(acme.Problem)) {
				t.Errorf("a renewal: %v", err)
			}
		}, want: map[string]uint64{"obtain ok": 1, "renew refused": 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{ca: testca.New(t, testca.Config{Trusting: true}), storage: newMemStorage()}
				w.nodes = stubbed(t, w.ca, max(1, test.nodes), w.storage, test.more, nil)
				test.run(t, w)
				startAll(t, w.nodes, name)
				time.Sleep(orderJitter + 100*time.Millisecond) // less than the pause after a failure
				synctest.Wait()
				got, took := make(map[string]uint64), uint64(0)
				for _, c := range w.nodes {
					for label, n := range counted(&c.Meters().Orders) {
						kind, ok := strings.CutPrefix(label, c.Issuers()[0]+" ")
						if !ok {
							t.Errorf("the issuer of %q", label)
						}
						got[kind] += n
					}
					took += c.Meters().Order.Load().Count
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if want := test.want["obtain ok"] + test.want["renew ok"]; took != want {
					t.Errorf("%d orders were timed, want %d", took, want)
				}
			})
		})
	}
}

// An order is timed from when it is placed until the certificate is stored.
func TestOrdersAreTimed(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		placed := stubca.Orders{Fail: func(int) error { time.Sleep(3 * time.Second); return nil }}
		c := recordedNodes(t, 1, storage, &placed, nil)[0]
		startAll(t, []*Certs{c}, "a.example")
		time.Sleep(10 * time.Second)
		settle(t, c)
		if got := c.Meters().Order.Load(); got.Count != 1 || got.Sum != 3*time.Second {
			t.Errorf("%d orders took %v, want one of 3s", got.Count, got.Sum)
		}
	})
}

// The last look for certificates that are due is known. It comes every ten minutes. When looks
// fail, hang or panic it does not move, and it moves again after that.
func TestRenewalCheck(t *testing.T) {
	synctest.Parallel(t)
	t.Run("of a node", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := devCerts(t, newMemStorage(), nil)
			began := time.Now()
			for i := range 4 {
				if got := c.Meters().RenewalCheck.Load().Sub(began); got != time.Duration(i)*renewalInterval {
					t.Errorf("look %d came after %v", i, got)
				}
				time.Sleep(renewalInterval)
				synctest.Wait()
			}
			last := c.Meters().RenewalCheck.Load()
			c.Close()
			time.Sleep(time.Hour)
			if got := c.Meters().RenewalCheck.Load(); !got.Equal(last) {
				t.Errorf("a look %v after the end", got.Sub(last))
			}
		})
	})
	for name, test := range map[string]struct {
		look func(context.Context) error
		says string // seven times
	}{
		"it fails":  {func(context.Context) error { return errInjected }, "level=WARN"},
		"it hangs":  {func(ctx context.Context) error { <-ctx.Done(); return nil }, ""},
		"it panics": {func(context.Context) error { panic("x") }, "level=ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var looked meter.Moment
				var out bytes.Buffer
				life, end := context.WithCancel(t.Context())
				var works atomic.Bool
				works.Store(true)
				r := &renewals{looked: &looked, every: renewalInterval, log: testlog.To(&out, slog.LevelDebug), life: life}
				hung, unhang := context.WithCancel(t.Context())
				r.look = func(context.Context) error {
					if works.Load() {
						return nil
					}
					return test.look(hung)
				}
				r.start()
				began := looked.Load()
				works.Store(false)
				time.Sleep(7*renewalInterval + time.Second)
				if got := looked.Load(); !got.Equal(began) {
					t.Errorf("it has moved by %v", got.Sub(began))
				}
				works.Store(true)
				unhang()
				time.Sleep(renewalInterval)
				if got := time.Since(looked.Load()); got > renewalInterval {
					t.Errorf("the last look was %v ago", got)
				}
				end()
				r.tasks.Close()
				all, n := strings.Count(out.String(), "level="), strings.Count(out.String(), test.says)
				if test.says == "" && all != 0 || test.says != "" && (all != 7 || n != 7) {
					t.Errorf("%d lines, want seven of %q:\n%.500s", all, test.says, out.String())
				}
			})
		})
	}
	t.Run("certmagic's own loop is not mentioned", func(t *testing.T) {
		var out bytes.Buffer
		c, err := openCerts(Policy{}, newMemStorage(), true, always, testlog.To(&out, slog.LevelDebug))
		if err != nil {
			t.Fatal(err)
		}
		c.loader.config.Logger.Info("certmagic is heard")
		c.Close()
		if text := out.String(); strings.Contains(text, "maintenance") || !strings.Contains(text, "certmagic is heard") {
			t.Errorf("logged:\n%s", text)
		}
	})
}

// A certificate is this node's own while it orders it, and once more when it has.
func TestIsOwn(t *testing.T) {
	l := devCerts(t, newMemStorage(), nil).loader
	const name = "a.example"
	for i, step := range []struct {
		do     func()
		serial string
		want   bool
	}{
		{nil, "1", false},
		{func() { l.ordering(name) }, "1", true},
		{func() { l.ordered(name, "1") }, "2", false},
		{nil, "1", true},
		{nil, "1", false},
		{func() { l.ordering(name); l.notOrdered(name) }, "3", false},
		{func() { l.ordered(name, "3"); l.withdraw(name) }, "3", false},
		{func() { l.ordering(name) }, "4", true}, // and nobody says how that order ends
		{nil, "5", false},
	} {
		if step.do != nil {
			step.do()
		}
		if got := l.isOwn(name, step.serial); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}

// Only an order that was placed is an event when it fails, and only once for a reason.
func TestOnlyOrdersAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name    string
		ordered []bool // by try
		reasons []string
		want    int
	}{
		{"an order", []bool{true}, []string{"no"}, 1},
		{"no order", []bool{false}, []string{"there is no leader"}, 0},
		{"the same again", []bool{true, true}, []string{"no", "no"}, 1},
		{"for another reason", []bool{true, true}, []string{"no", "too many"}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			c, err := openCerts(Policy{}, newMemStorage(), true, always, testlog.To(&out, slog.LevelWarn))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			const name = "a.example"
			c.loader.names.declare(name, c.loader.site(name))
			for i, reason := range tc.reasons {
				c.obtainer.complain(name, errors.New(reason), time.Second, tc.ordered[i])
			}
			if got := strings.Count(out.String(), "event=order_refused"); got != tc.want {
				t.Errorf("%d events, want %d, in\n%s", got, tc.want, out.String())
			}
			if got := strings.Count(out.String(), "no certificate; will try again"); got != len(tc.reasons) {
				t.Errorf("%d lines, want %d, in\n%s", got, len(tc.reasons), out.String())
			}
		})
	}
}

// Challenges are counted, those of orders and those that no order waits for.
func TestChallengesAreCounted(t *testing.T) {
	t.Run("http-01", func(t *testing.T) {
		storage := newMemStorage()
		c := acmeCerts(t, storage, nil)
		token := stubca.StoreToken(t, storage, c.Issuers()[0], acme.ChallengeTypeHTTP01, "a.test").HTTP01ResourcePath()
		for _, at := range []string{token, token, "/.well-known/acme-challenge/x", "/x"} {
			r := httptest.NewRequest("GET", at, nil)
			r.Host = "a.test"
			c.HTTPHandler(nil).ServeHTTP(httptest.NewRecorder(), r)
		}
		want := map[string]uint64{"http-01 answered": 2, "http-01 unknown": 1}
		if diff := cmp.Diff(want, counted(&c.Meters().Challenges)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("a node without a lease", func(t *testing.T) {
		c := acmeCerts(t, newMemStorage(), nil, func(c *Config) { c.Current = func() bool { return false } })
		r := httptest.NewRequest("GET", "/.well-known/acme-challenge/x", nil)
		r.Host = "a.test"
		c.HTTPHandler(nil).ServeHTTP(httptest.NewRecorder(), r)
		if diff := cmp.Diff(map[string]uint64{}, counted(&c.Meters().Challenges)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("tls-alpn-01", func(t *testing.T) {
		storage := newMemStorage()
		const served = "served.test"
		dev := devCerts(t, storage, nil)
		if _, err := dev.TLSConfig(served); err != nil {
			t.Fatal(err)
		}
		settle(t, dev)
		c := acmeCerts(t, storage, func(cfg *certmagic.Config, i *certmagic.ACMEIssuer) {
			cfg.Issuers = []certmagic.Issuer{i, &devca.Issuer{Storage: storage}}
		})
		addr := serveTLS(t, c, http.NotFoundHandler(), served)
		settle(t, c)
		stubca.StoreToken(t, storage, c.Issuers()[0], acme.ChallengeTypeTLSALPN01, "alpn.test")
		// the second is no challenge
		for _, protos := range [][]string{{acmez.ACMETLS1Protocol}, {acmez.ACMETLS1Protocol, "http/1.1"}} {
			for _, name := range []string{"alpn.test", "other.test", served} {
				conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: name, NextProtos: protos, InsecureSkipVerify: true})
				if err == nil {
					conn.Close()
				}
			}
		}
		want := map[string]uint64{"tls-alpn-01 answered": 1, "tls-alpn-01 unknown": 2}
		if diff := cmp.Diff(want, counted(&c.Meters().Challenges)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// refusals is a Limiter that counts handshakes which fail.
type refusals struct {
	unlimited
	n atomic.Int64
}

func (r *refusals) Refuse(net.Conn) { r.n.Add(1) }

// The limiter learns of handshakes for which there is no certificate, at the first message and
// later, and of no others.
func TestRefusedHandshakesAreReported(t *testing.T) {
	storage := newMemStorage()
	limit := new(refusals)
	var w wishes
	c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
		w.configure(cfg)
	}}, storage, true, always, nil, func(c *Config) { c.Limit = limit })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cfg, err := c.TLSConfig("a.test")
	if err != nil {
		t.Fatal(err)
	}
	settle(t, c)
	for _, test := range []struct {
		name string
		want int64
	}{
		{"a.test", 0},
		{"other.test", 1}, // the program does not want it
		{strings.Repeat("a.", 130) + "test", 2},
		{"b.wanted.example", 2},
	} {
		testtls.Serial(cfg, test.name)
		if got := limit.n.Load(); got != test.want {
			t.Errorf("after %s: %d, want %d", test.name, got, test.want)
		}
	}
}

// Status says when a certificate is renewed: when the authority suggests it, and without a
// suggestion, or with one that comes late, when a third of its life is left.
func TestStatusOfRenewal(t *testing.T) {
	synctest.Parallel(t)
	const life = 30 * 24 * time.Hour
	for name, test := range map[string]struct {
		start    time.Duration // of the suggested hour, from the order on
		disabled bool
		ratio    float64
		// how much of its life is left then; 0: it is within an hour from start on
		left func(life time.Duration) time.Duration
	}{
		"suggested early":       {start: 5 * 24 * time.Hour},
		"suggested late":        {start: 25 * 24 * time.Hour, left: func(life time.Duration) time.Duration { return life / 3 }},
		"not heeded":            {start: 5 * 24 * time.Hour, disabled: true, left: func(life time.Duration) time.Duration { return life / 3 }},
		"another share of life": {start: 25 * 24 * time.Hour, ratio: .5, left: func(life time.Duration) time.Duration { return life / 2 }},
		"hardly any life left":  {start: 25 * 24 * time.Hour, ratio: .0001},
		"at the last moment": {start: 25 * 24 * time.Hour, disabled: true, ratio: .0001, left: func(time.Duration) time.Duration {
			return 5 * renewalInterval
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				s := &sites{net: simnet.New()}
				ca := testca.New(t, testca.Config{Dial: s.dial, Lifetime: life, Trusting: true})
				c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, i *certmagic.ACMEIssuer) {
					ca.Configure(cfg, i)
					cfg.DisableARI, cfg.RenewalWindowRatio = test.disabled, test.ratio
				}}, newMemStorage(), false, always, nil, offline)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(c.Close)
				startAll(t, []*Certs{c}, "a.example")
				time.Sleep(time.Minute)
				settle(t, c)
				ca.SetWindow(c.Status()[0].Serial, began.Add(test.start), began.Add(test.start+time.Hour))
				time.Sleep(24 * time.Hour) // certmagic asks again
				got := c.Status()[0]
				if test.left == nil {
					if at := got.Renewal.Sub(began); at < test.start || at > test.start+time.Hour {
						t.Errorf("after %v, want within an hour from %v on", at, test.start)
					}
				} else if left, want := got.NotAfter.Sub(got.Renewal), test.left(got.NotAfter.Sub(got.NotBefore)); (left - want).Abs() > 2*time.Second {
					t.Errorf("%v before the end, want %v", left, want)
				}
				if got.NotBefore.IsZero() || got.NotBefore.After(began.Add(time.Minute)) {
					t.Errorf("valid from %v", got.NotBefore)
				}
			})
		})
	}
}

// Status has the end of the OCSP staple, also of a certificate on demand, as long as the staple is
// given.
func TestStatusOfStaple(t *testing.T) {
	synctest.Parallel(t)
	for name, demand := range map[string]bool{"declared": false, "on demand": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, storage := newOCSPCA(t, "http://ocsp.example"), newMemStorage()
				var w wishes
				c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
					cfg.Issuers = []certmagic.Issuer{a}
					if demand {
						w.configure(cfg)
					}
				}}, storage, true, always, nil, func(c *Config) { c.Network = a })
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(c.Close)
				const site = "a.wanted.example"
				var names []string
				if !demand {
					names = []string{site}
				}
				cfg, err := c.TLSConfig(names...)
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				get := func() Status {
					all, _ := c.OnDemand()
					if all = append(all, c.Status()...); len(all) != 1 {
						t.Fatalf("%+v", all)
					}
					return all[0]
				}
				time.Sleep(time.Second)
				testtls.Serial(cfg, site)
				synctest.Wait()
				s := get()
				if got := s.OCSPNextUpdate.Sub(began); got < stapleLife || got > stapleLife+time.Minute {
					t.Errorf("the staple is valid for %v", got)
				}
				if left := s.NotAfter.Sub(s.Renewal); left < 29*24*time.Hour || left > 31*24*time.Hour {
					t.Errorf("renewed %v before its end", left)
				}
				a.answers(func(w http.ResponseWriter, _ *saying) bool { w.WriteHeader(http.StatusBadGateway); return true })
				time.Sleep(stapleLife)
				if s := get(); !s.OCSPNextUpdate.IsZero() {
					t.Errorf("an expired staple: %v", s.OCSPNextUpdate)
				}
			})
		})
	}
	t.Run("none", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := devCerts(t, newMemStorage(), nil)
			startAll(t, []*Certs{c}, "a.example")
			time.Sleep(time.Second)
			settle(t, c)
			if s := c.Status()[0]; !s.OCSPNextUpdate.IsZero() {
				t.Errorf("%v", s.OCSPNextUpdate)
			}
		})
	})
}
