package certs

import (
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ocsp"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// tagged returns the events in a log, with their levels and subjects. The attribute of the kind is
// the first of its line, and the subject follows.
func tagged(log *testlog.Buffer) (all []string) {
	line := regexp.MustCompile(`(?m)^(?:time=\S+ )?level=(\w+) msg=(?:"(?:[^"\\]|\\.)*"|\S+) event=(\w+) (?:domain|issuer)=(\S+)`)
	for _, m := range line.FindAllStringSubmatch(log.String(), -1) {
		all = append(all, m[1]+" "+m[2]+" "+m[3])
	}
	return all
}

// eventWorld is a cluster of which each node has a log.
type eventWorld struct {
	t       *testing.T
	storage *memStorage
	broken  atomic.Bool // orders fail
	logs    []*testlog.Buffer
	nodes   []*Certs
}

// newEventWorld returns a cluster of n nodes. configure, if not nil, configures the rest of each.
func newEventWorld(t *testing.T, n int, configure func(*certmagic.Config)) *eventWorld {
	t.Helper()
	w := &eventWorld{t: t, storage: newMemStorage()}
	for range n {
		log := new(testlog.Buffer)
		c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
			cfg.Issuers = []certmagic.Issuer{&stubca.Issuer{Issuer: devca.Issuer{Storage: w.storage}, Fails: func() error {
				if w.broken.Load() {
					return errors.New("refused")
				}
				return nil
			}}}
			if configure != nil {
				configure(cfg)
			}
		}}, w.storage, true, always, testlog.To(log, slog.LevelInfo))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		w.logs, w.nodes = append(w.logs, log), append(w.nodes, c)
	}
	w.storage.notify(w.nodes...)
	return w
}

// forget empties the logs.
func (w *eventWorld) forget() {
	for _, l := range w.logs {
		l.Reset()
	}
}

// tell fails the test unless the logs of the nodes have these events since the last call.
func (w *eventWorld) tell(what string, want ...[]string) {
	w.t.Helper()
	synctest.Wait()
	var got [][]string
	for _, l := range w.logs {
		got = append(got, tagged(l))
	}
	w.forget()
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// What happens to certificates is one line of the log with its kind, at the nodes that it happens
// to.
func TestLinesOfEvents(t *testing.T) {
	synctest.Parallel(t)
	const name = "a.example"
	for _, test := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"orders", func(t *testing.T) {
			w := newEventWorld(t, 2, nil)
			manageOn(t, w.nodes[:1], name)
			w.tell("the first order", []string{"INFO certificate_obtained " + name}, nil)
			manageOn(t, w.nodes[1:], name)
			w.tell("a node that starts", nil, nil)
			for range 3 {
				if err := w.nodes[1].orders.order(t.Context(), name, true, attempt{again: true}); err != nil {
					t.Fatal(err)
				}
				w.tell("a renewal", []string{"INFO certificate_served " + name}, []string{"INFO certificate_renewed " + name})
			}
		}},
		{"an order of each node in turn", func(t *testing.T) {
			w := newEventWorld(t, 2, nil)
			manageOn(t, w.nodes, name)
			w.forget()
			for i := range 4 {
				if err := w.nodes[i%2].orders.order(t.Context(), name, true, attempt{again: true}); err != nil {
					t.Fatal(err)
				}
				want := [][]string{{"INFO certificate_served " + name}, {"INFO certificate_served " + name}}
				want[i%2] = []string{"INFO certificate_renewed " + name}
				w.tell("a renewal", want...)
			}
		}},
		{"renewals by themselves", func(t *testing.T) {
			w := newEventWorld(t, 1, nil)
			manageOn(t, w.nodes, name)
			w.tell("the first order", []string{"INFO certificate_obtained " + name})
			time.Sleep(devca.LeafLife * 3 / 4)
			w.tell("renewed", []string{"INFO certificate_renewed " + name})
			w.broken.Store(true)
			time.Sleep(devca.LeafLife * 2 / 3)
			w.tell("not renewed, and tried again and again", []string{"WARN order_refused " + name})
			w.broken.Store(false)
			time.Sleep(7 * time.Hour) // certmagic's longest pause
			w.tell("renewed later", []string{"INFO certificate_renewed " + name})
		}},
		{"a renewal of another node after a failed one", func(t *testing.T) {
			w := newEventWorld(t, 2, nil)
			manageOn(t, w.nodes, name)
			w.forget()
			w.storage.denyAll(func(op, key string) error {
				if op == "store" && strings.HasPrefix(key, "certificates/") {
					return errInjected
				}
				return nil
			})
			if err := w.nodes[0].orders.order(t.Context(), name, true, attempt{again: true}); err == nil || !strings.Contains(err.Error(), "saving assets") {
				t.Errorf("with no room to store: %v", err)
			}
			w.storage.denyAll(nil)
			if err := w.nodes[1].orders.order(t.Context(), name, true, attempt{again: true}); err != nil {
				t.Fatal(err)
			}
			w.tell("renewed", []string{"INFO certificate_served " + name}, []string{"INFO certificate_renewed " + name})
		}},
		{"a first order fails", func(t *testing.T) {
			w := newEventWorld(t, 2, nil)
			w.broken.Store(true)
			startAll(t, w.nodes[:1], name)
			time.Sleep(orderJitter)
			w.tell("the first try", []string{"WARN order_refused " + name}, nil)
			// the other node gets it from elsewhere
			startAll(t, w.nodes[1:], name)
			time.Sleep(orderJitter + time.Second)
			other := devCerts(t, w.storage, nil)
			manageOn(t, []*Certs{other}, name)
			time.Sleep(time.Hour)
			for i, l := range w.logs { // after other tries, perhaps
				if all := tagged(l); len(all) == 0 || slices.Index(all, "INFO certificate_served "+name) != len(all)-1 {
					t.Errorf("node %d, while another one is luckier: %v", i, all)
				}
			}
		}},
		{"self-signed", func(t *testing.T) {
			w := newEventWorld(t, 1, nil)
			w.broken.Store(true)
			startAll(t, w.nodes, name)
			time.Sleep(orderJitter)
			w.tell("the first try", []string{"WARN order_refused " + name})
			for range 2 {
				testtls.Serial(w.nodes[0].handshakes.config(name), name)
			}
			w.tell("two handshakes", []string{"WARN self_signed " + name})
		}},
		{"on demand", func(t *testing.T) {
			var wanted wishes
			w := newEventWorld(t, 1, wanted.configure)
			const name = "a.wanted.example"
			w.broken.Store(true)
			testtls.Serial(w.nodes[0].handshakes.config(""), name)
			w.tell("refused", []string{"WARN order_refused " + name})
			w.broken.Store(false)
			testtls.Serial(w.nodes[0].handshakes.config(""), name)
			w.tell("obtained", []string{"INFO certificate_obtained " + name})
		}},
		{"an authority that wants fewer requests", func(t *testing.T) {
			ca, log := testca.New(t, testca.Config{Trusting: true}), new(testlog.Buffer)
			ca.Limit(testca.NewOrder, time.Hour)
			c, err := openCerts(policyOf(ca, nil), newMemStorage(), false, always, testlog.To(log, slog.LevelInfo), offline)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			startAll(t, []*Certs{c}, name)
			time.Sleep(time.Second)
			synctest.Wait()
			want := []string{"WARN authority_paused " + acmeIssuer(c).IssuerKey(), "WARN order_refused " + name}
			if diff := cmp.Diff(want, tagged(log)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}},
		{"a key is replaced", func(t *testing.T) {
			w := newRekeyWorld(t)
			w.open(w.storage, name)
			time.Sleep(time.Minute)
			w.rekey(w.nodes[0], "17")
			want := []string{"INFO certificate_obtained " + name, "INFO certificate_replaced " + name}
			if diff := cmp.Diff(want, tagged(&w.log)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { test.run(t) }) })
	}
}

// A revoked certificate is one line with its kind at each node, with the reason in words. One that
// is not replaced is another.
func TestLinesOfRevocations(t *testing.T) {
	synctest.Parallel(t)
	const name = "a.example"
	for what, test := range map[string]struct {
		reason int
		says   string
		fail   error
		want   []string
	}{
		"replaced": {ocsp.Superseded, `reason="it was replaced"`, nil, []string{
			"INFO certificate_obtained " + name, "ERROR certificate_revoked " + name, "INFO certificate_renewed " + name,
		}},
		"its key is known": {ocsp.KeyCompromise, `reason="others may know its key"`, nil, []string{
			"INFO certificate_obtained " + name, "ERROR certificate_revoked " + name, "INFO certificate_renewed " + name,
		}},
		"not replaced": {ocsp.CessationOfOperation, `reason="its owner no longer uses the name"`, errInjected, []string{
			"INFO certificate_obtained " + name, "ERROR certificate_revoked " + name, "WARN order_refused " + name,
		}},
		"for an unusual reason": {10, `reason="reason 10 of RFC 5280"`, errInjected, []string{
			"INFO certificate_obtained " + name, "ERROR certificate_revoked " + name, "WARN order_refused " + name,
		}},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, log := newOCSPCA(t, "http://ocsp.example"), new(testlog.Buffer)
				nodes := a.nodes(t, 1, newMemStorage(), true, testlog.To(log, slog.LevelInfo))
				old := testtls.Serial(manageOn(t, nodes, name)[0], name)
				time.Sleep(2 * time.Hour)
				a.mu.Lock()
				a.fail = test.fail
				a.mu.Unlock()
				a.answers(func(_ http.ResponseWriter, say *saying) bool {
					if old == say.SerialNumber.Text(16) {
						say.Status, say.RevokedAt, say.RevocationReason = ocsp.Revoked, time.Now(), test.reason
					}
					return false
				})
				time.Sleep(stapleLife*5/8 + time.Minute)
				synctest.Wait()
				got := tagged(log)
				// One that is not replaced is tried again every hour.
				if diff := cmp.Diff(test.want, got[:min(len(got), 3)]); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if n := regexp.MustCompile(regexp.QuoteMeta(test.says)).FindAllString(log.String(), -1); len(n) != 1 {
					t.Errorf("%s is there %d times", test.says, len(n))
				}
			})
		})
	}
}
