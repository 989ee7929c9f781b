package flotilla

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

const farAhead = 100 * 24 * time.Hour // more than a certificate's life

// A node whose clock is ahead by more than the life of a certificate orders nothing, deletes
// nothing, serves what there is, and reports why. The others go on, and so does the node when its
// clock is set.
func TestNodeWithWrongClock(t *testing.T) {
	OnlyLong(t)
	ca := testca.New(t, testca.Config{Trusting: true, Lifetime: time.Hour})
	if err := ca.PrepareRenewals(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		const name = "a.example"
		configs, doors, logs := map[string]*certmagic.Config{}, map[string]*door{}, map[string]*bytes.Buffer{}
		nodes := trio(t, simnet.New(), func(c *Config) {
			d := &door{Authority: ca}
			c.hooks.Ahead = d.wall
			doors[c.Name], logs[c.Name] = d, new(bytes.Buffer)
			stubTLS(c, ca, func(cfg *certmagic.Config) { configs[c.Name] = cfg })
			configure := c.TLS.Configure
			c.TLS.Configure = func(cfg *certmagic.Config, i *certmagic.ACMEIssuer) {
				configure(cfg, i)
				backoff.HTTPClientOf(i).Transport = d
			}
			c.Logger = testlog.To(logs[c.Name], slog.LevelWarn)
		})
		wrong, right := nodes[0], nodes[1:]
		serveNames(t, nodes, name)
		time.Sleep(time.Minute)
		old := sameSerial(t, nodes, name, "")
		if n := len(ca.Placed("")); n != 1 {
			t.Fatalf("%d orders, want 1", n)
		}
		before := doors["a"].orders.Load()

		// certmagic reads the one clock that all nodes have here. So the clock of the others is set back:
		// by that, the right one, the certificate has not expired when it has by this one.
		// It refuses the others' orders, or the one whose clock is wrong would have nothing to order.
		for _, n := range right {
			doors[n.self.Name].ahead.Store(int64(-farAhead))
			doors[n.self.Name].refusing.Store(true)
		}
		time.Sleep(time.Hour + time.Minute)
		// certmagic renews one name once in a process, whichever node that is for
		wrong.certs.Stored(certmagic.StorageKeys.Safe(name))
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, name := range []string{name, "new.example"} {
			if err := configs[wrong.self.Name].RenewCertSync(t.Context(), name, true); !errors.As(err, new(*clocks.Error)) {
				t.Errorf("an order of %s: %v", name, err)
			}
		}
		if n := doors["a"].orders.Load() - before; n != 0 {
			t.Errorf("%d orders of the one whose clock is wrong", n)
		}
		if s := wrong.Status().Certificates[0]; !strings.Contains(s.Err, "clock is wrong") {
			t.Errorf("status of the certificate: %+v", s)
		}
		if got := sameSerial(t, nodes, name, ""); got != old {
			t.Errorf("serves %q, want %q, which has expired by one clock alone", got, old)
		}
		site := certmagic.StorageKeys.CertsSitePrefix(wrong.certs.Issuers()[0], name)
		if !wrong.Storage().Exists(t.Context(), site) {
			t.Error("the certificate was deleted")
		}

		s := wrong.Status()
		for _, part := range []string{"2400h0m0s ahead of that of b", "2400h0m0s ahead of that of c", "NTP"} {
			if !strings.Contains(s.Clock, part) {
				t.Errorf("status of the one whose clock is wrong: %q, want %q in it", s.Clock, part)
			}
		}
		for _, m := range s.Members {
			if d := m.ClockAhead + farAhead; m.ID != wrong.self.ID && (d < -time.Minute || d > time.Minute) {
				t.Errorf("%s is ahead by %v", m.Name, m.ClockAhead)
			}
		}
		if !strings.Contains(logs["a"].String(), "level=ERROR msg=\"the clock of this node cannot be relied on\"") {
			t.Errorf("logged:\n%s", logs["a"])
		}
		for _, n := range right {
			if s := n.Status(); s.Clock != "" {
				t.Errorf("%s: %s", n.self.Name, s.Clock)
			}
			if !strings.Contains(logs[n.self.Name].String(), "a clock differs from this node's; one of them is wrong\" node="+n.self.Name+" event=clock_wrong peer=a ahead=2400h") {
				t.Errorf("%s logged:\n%s", n.self.Name, logs[n.self.Name])
			}
		}

		for _, n := range right {
			doors[n.self.Name].ahead.Store(0)
			doors[n.self.Name].refusing.Store(false)
		}
		time.Sleep(45 * time.Minute)
		if s := wrong.Status(); s.Clock != "" || s.Members[1].ClockAhead != 0 || s.Certificates[0].Err != "" {
			t.Errorf("after the clocks were set: %q, %+v, %+v", s.Clock, s.Members, s.Certificates)
		}
		sameSerial(t, nodes, name, old)
	})
}

// door is a node's way to the authority, which shows it the node's own clock.
type door struct {
	*testca.Authority
	ahead    atomic.Int64 // nanoseconds by which both clocks are ahead
	refusing atomic.Bool  // it refuses orders
	orders   atomic.Int64 // that came this way
}

// wall returns by how much the node's clock is ahead.
func (d *door) wall() time.Duration { return time.Duration(d.ahead.Load()) }

// RoundTrip implements http.RoundTripper.
func (d *door) RoundTrip(r *http.Request) (*http.Response, error) {
	order := r.URL.Path == "/"+string(testca.NewOrder)
	if order {
		d.orders.Add(1)
	}
	res, err := d.Authority.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if order && d.refusing.Load() {
		text := `{"type":"urn:ietf:params:acme:error:unauthorized","detail":"the proof was wrong"}`
		res.StatusCode, res.Body = http.StatusForbidden, io.NopCloser(strings.NewReader(text))
		res.Header.Set("Content-Type", "application/problem+json")
	}
	res.Header.Set("Date", time.Now().Add(d.wall()).UTC().Format(http.TimeFormat))
	return res, nil
}
