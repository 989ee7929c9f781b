package flotilla

import (
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/testlog"

	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

const farAhead = 100 * 24 * time.Hour // more than a certificate's life

func TestClocksAgree(t *testing.T) {
	for _, tc := range []struct {
		name  string
		ahead []time.Duration // of the peers
		late  time.Duration   // the answer is
		wrong bool
	}{
		{"alone", nil, 0, false},
		{"all right", []time.Duration{0, time.Second}, 0, false},
		{"one of two peers is wrong", []time.Duration{farAhead, 0}, 0, false},
		{"this one is ahead", []time.Duration{-farAhead, -farAhead}, 0, true},
		{"this one is behind", []time.Duration{farAhead, farAhead}, 0, true},
		{"all three differ", []time.Duration{farAhead, -farAhead}, 0, true},
		{"two of two", []time.Duration{farAhead}, 0, true},
		{"two of four peers", []time.Duration{farAhead, farAhead, 0, 0}, 0, false},
		{"three of four peers", []time.Duration{farAhead, farAhead, farAhead, 0}, 0, true},
		{"half an hour", []time.Duration{time.Hour / 2, time.Hour / 2}, 0, false},
		{"answers that come a day late", []time.Duration{-20 * time.Hour, -20 * time.Hour}, 24 * time.Hour, false},
		{"late answers that prove it all the same", []time.Duration{-72 * time.Hour, -72 * time.Hour}, 24 * time.Hour, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := clocks.New(clocks.Config{Log: testlog.None()})
				from := time.Now()
				time.Sleep(tc.late)
				for i, d := range tc.ahead {
					c.Observe(string(rune('a'+i)), time.Now().Add(d), from)
				}
				if err := c.Check(clocks.MaxOffset); errors.As(err, new(*clocks.Error)) != tc.wrong {
					t.Errorf("check: %v, want an error: %v", err, tc.wrong)
				}
				time.Sleep(clocks.ClockFresh)
				if err := c.Check(clocks.MaxOffset); err != nil {
					t.Errorf("what was heard a minute ago counts: %v", err)
				}
			})
		})
	}
}

// The authority's clock is one of the peers': a node alone has no other.
func TestAuthoritysClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newStubCA(t)
		c := stubbed(t, ca, 1, newMemStorage(), nil, nil)[0]
		ca.set(-farAhead)
		startAll(t, []*certs{c}, "a.example")
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if n := len(ca.placed("")); n == 0 || n > 3 {
			t.Errorf("%d orders in two hours of certificates that have expired when they come, want very few", n)
		}
		if s := c.status()[0]; s.Err == nil || !strings.Contains(s.Err.Error(), "clock") {
			t.Errorf("status: %+v", s)
		}
		ca.set(0)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		settle(t, c)
	})
}

// A node whose clock is ahead by more than a certificate's life orders nothing, deletes nothing, serves what there is, and says why. The
// others do not mind. All goes on when the clock is set.
func TestNodeWithWrongClock(t *testing.T) {
	SkipShort(t)
	url := limitedByCertmagic(t)
	synctest.Test(t, func(t *testing.T) {
		const name = "a.example"
		cas, logs := map[string]*stubCA{}, map[string]*bytes.Buffer{}
		var refusing atomic.Bool
		nodes := trio(t, simnet.New(), func(c *Config) {
			ca := newStubCA(t)
			ca.url, ca.life = url, time.Hour
			if c.Name != "a" { // or they would see to it that the one whose clock is wrong has nothing to order
				ca.refuse = func(what string, _ []string) *http.Response {
					if what != "order" || !refusing.Load() {
						return nil
					}
					return ca.problem(403, "unauthorized", "the proof was wrong", "")
				}
			}
			cas[c.Name], logs[c.Name] = ca, new(bytes.Buffer)
			c.TLS, c.Logger = tlsOf(policyOf(ca, nil)), testlog.To(logs[c.Name], slog.LevelWarn)
		})
		wrong, right := nodes[0], nodes[1:]
		for _, n := range nodes {
			offline(n.certs)
			startAll(t, []*certs{n.certs}, name)
		}
		time.Sleep(time.Minute)
		old := sameSerial(t, nodes, name, "")
		if n := len(cas["a"].placed("")) + len(cas["b"].placed("")) + len(cas["c"].placed("")); n != 1 {
			t.Fatalf("%d orders, want 1", n)
		}
		before := len(cas["a"].placed(""))

		// All nodes have one clock here, which certmagic reads. So that of the others is set back: it is the right one, by which the certificate
		// has not expired when it has by this one.
		refusing.Store(true)
		for _, n := range right {
			n.clocks.Shift(-farAhead)
			cas[n.self.name].set(-farAhead)
		}
		time.Sleep(time.Hour + time.Minute)
		wrong.certs.stored(certmagic.StorageKeys.Safe(name)) // certmagic renews one name once in a process, whichever node that is for
		time.Sleep(time.Minute)
		synctest.Wait()
		for name, order := range map[string]attempt{name: {}, "new.example": {}} {
			if err := wrong.certs.order(t.Context(), name, true, order); !errors.As(err, new(*clocks.Error)) {
				t.Errorf("an order of %s: %v", name, err)
			}
		}
		if n := len(cas["a"].placed("")) - before; n != 0 {
			t.Errorf("%d orders of the one whose clock is wrong", n)
		}
		if s := wrong.Status().Certificates[0]; !strings.Contains(s.Err, "clock is wrong") {
			t.Errorf("status of the certificate: %+v", s)
		}
		if got := sameSerial(t, nodes, name, ""); got != old {
			t.Errorf("serves %q, want %q, which has expired by one clock alone", got, old)
		}
		site := certmagic.StorageKeys.CertsSitePrefix(acmeIssuer(wrong.certs).IssuerKey(), name)
		if wrong.certs.maintainOnce(t, wrong.Storage()); !wrong.Storage().Exists(t.Context(), site) {
			t.Error("the certificate was deleted")
		}

		s := wrong.Status()
		for _, part := range []string{"2400h0m0s ahead of that of b", "2400h0m0s ahead of that of c", "NTP"} {
			if !strings.Contains(s.Clock, part) {
				t.Errorf("status of the one whose clock is wrong: %q, want %q in it", s.Clock, part)
			}
		}
		for _, m := range s.Members {
			if d := m.ClockAhead + farAhead; m.ID != wrong.self.id && (d < -time.Minute || d > time.Minute) {
				t.Errorf("%s is ahead by %v", m.Name, m.ClockAhead)
			}
		}
		if !strings.Contains(logs["a"].String(), "level=ERROR msg=\"the clock of this node cannot be relied on\"") {
			t.Errorf("logged:\n%s", logs["a"])
		}
		for _, n := range right {
			if s := n.Status(); s.Clock != "" {
				t.Errorf("%s: %s", n.self.name, s.Clock)
			}
			if !strings.Contains(logs[n.self.name].String(), "a clock differs from this node's; one of them is wrong\" peer=a ahead=2400h") {
				t.Errorf("%s logged:\n%s", n.self.name, logs[n.self.name])
			}
		}

		refusing.Store(false)
		for _, n := range right {
			n.clocks.Shift(0)
			cas[n.self.name].set(0)
		}
		time.Sleep(45 * time.Minute)
		if s := wrong.Status(); s.Clock != "" || s.Members[1].ClockAhead != 0 || s.Certificates[0].Err != "" {
			t.Errorf("after the clocks were set: %q, %+v, %+v", s.Clock, s.Members, s.Certificates)
		}
		sameSerial(t, nodes, name, old)
	})
}

// maintainOnce cleans as the maintenance does, a month later by the clock that certmagic reads: expired certificates are kept for a while.
func (c *certs) maintainOnce(t *testing.T, storage certmagic.Storage) {
	t.Helper()
	if n, err := storage.List(t.Context(), "certificates", true); err != nil || len(n) == 0 {
		t.Fatalf("nothing to clean: %v, %v", n, err)
	}
	c.cleanWith(t.Context(), storage, 0)
}
