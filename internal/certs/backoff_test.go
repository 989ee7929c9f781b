package certs

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A pause that an authority demands holds for all nodes, in whatever form it comes, and across a
// restart of all of them.
func TestRetryAfterHoldsForTheCluster(t *testing.T) {
	synctest.Parallel(t)
	skipShort(t)
	const wait = 3 * time.Hour
	for _, tc := range []struct {
		name    string
		what    testca.Operation // is refused
		refusal *testca.Refusal
		wait    time.Duration
	}{
		{"seconds", "order", testca.Problem(429, "rateLimited", "slow down", "10800"), wait},
		{"date", "order", testca.Problem(429, "rateLimited", "slow down", "Sat, 01 Jan 2000 03:00:00 GMT"), wait},
		{"another problem type", "order", testca.Problem(429, "malformed", "slow down", "10800"), wait},
		{"another status", "order", testca.Problem(400, "rateLimited", "slow down", "10800"), wait},
		{"no problem document", "order", &testca.Refusal{Status: 429, Detail: "<html>", RetryAfter: "10800"}, wait},
		{"unavailable", "order", testca.Problem(503, "serverInternal", "maintenance", "10800"), wait},
		{"unavailable directory", "directory", testca.Problem(503, "serverInternal", "maintenance", "10800"), wait},
		{"limited nonce", "nonce", testca.Problem(429, "rateLimited", "slow down", "10800"), wait},
		{"account", "account", testca.Problem(429, "rateLimited", "too many accounts", "10800"), wait},
		{"finalize", "finalize", testca.Problem(429, "rateLimited", "slow down", "10800"), wait},
		{"nothing said", "order", testca.Problem(429, "rateLimited", "slow down", ""), backoff.RetrySlow / 2},
		{"nonsense said", "order", testca.Problem(429, "rateLimited", "slow down", "soon"), backoff.RetrySlow / 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := testca.New(t, testca.Config{Trusting: true})
				var refusing atomic.Bool
				refusing.Store(true)
				ca.Refuse(func(r testca.Request) *testca.Refusal {
					if r.Op != tc.what || !refusing.Load() {
						return nil
					}
					return tc.refusal
				})
				storage := newMemStorage()
				began := time.Now()
				nodes := stubbed(t, ca, 3, storage, nil, nil)
				startAll(t, nodes, "a.example")
				time.Sleep(tc.wait / 3)
				synctest.Wait()
				first := ca.Asked(tc.what)
				if first != 1 {
					t.Errorf("%d requests before the authority was heard, want 1", first)
				}
				for _, c := range nodes {
					s := c.Status()[0]
					if s.Err == nil || s.Next.Sub(began) < tc.wait-time.Minute || s.Next.Sub(began) > 2*tc.wait+2*backoff.RetrySlow {
						t.Errorf("the next try is in %v: %v", s.Next.Sub(began), s.Err)
					}
				}
				for _, c := range nodes {
					c.Close()
				}
				nodes = stubbed(t, ca, 3, storage, nil, nil)
				startAll(t, nodes, "a.example")
				time.Sleep(tc.wait*2/3 - time.Second - time.Since(began.Add(tc.wait/3)))
				synctest.Wait()
				if n := ca.Asked(tc.what); n != first {
					t.Errorf("%d requests in the time that the authority wanted none", n-first)
				}
				refusing.Store(false)
				time.Sleep(2*tc.wait + 2*backoff.RetrySlow)
				synctest.Wait()
				for _, c := range nodes {
					settle(t, c)
				}
				if n := len(ca.Placed("")); n > 2 {
					t.Errorf("%d orders", n)
				}
				for key := range storage.data {
					if strings.HasPrefix(key, backoff.Place+"/names") {
						t.Errorf("%s is left after the order has not failed", key)
					}
				}
			})
		})
	}
}

// A limit of one name holds for that name, and one of the account for all names. If the authority
// does not say which it is, one other name finds out.
func TestLimitsOfNamesAndAccounts(t *testing.T) {
	synctest.Parallel(t)
	skipShort(t)
	for _, tc := range []struct {
		name, detail string
		all          bool // names are refused
		want         int  // orders of names that come later
	}{
		{"of a name", `too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s`, false, 4},
		{"of a domain", `too many certificates (50) already issued for "first.example" in the last 168h0m0s`, false, 4},
		{"of one, not said which", "slow down", false, 4},
		{"of all, not said which", "slow down", true, 1},
		{"of the account", "too many new orders (300) from this account in the last 3h0m0s", true, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := testca.New(t, testca.Config{Trusting: true})
				ca.Refuse(func(r testca.Request) *testca.Refusal {
					if r.Op != "order" || !tc.all && r.Names[0] != "first.example" {
						return nil
					}
					return testca.Problem(429, "rateLimited", tc.detail, "10800")
				})
				nodes := stubbed(t, ca, 3, newMemStorage(), nil, nil)
				startAll(t, nodes, "first.example")
				time.Sleep(10 * time.Second)
				for i := range 4 {
					startAll(t, nodes, fmt.Sprintf("later%d.example", i))
					time.Sleep(20 * time.Second)
				}
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				if n := len(ca.Placed("first.example")); n != 1 {
					t.Errorf("%d orders of the first name, want 1", n)
				}
				if n := len(ca.Placed("")) - 1; n != tc.want {
					t.Errorf("%d orders of the other names, want %d", n, tc.want)
				}
			})
		})
	}
}

// Failures are counted for the cluster: three nodes fail as often as one would, and another node
// goes on where one has stopped.
func TestFailuresAreTheClusters(t *testing.T) {
	synctest.Parallel(t)
	skipShort(t)
	synctest.Test(t, func(t *testing.T) {
		ca := testca.New(t, testca.Config{Trusting: true})
		ca.Refuse(func(r testca.Request) *testca.Refusal {
			if r.Op != "order" {
				return nil
			}
			return testca.Problem(403, "unauthorized", "the proof was wrong", "")
		})
		storage := newMemStorage()
		nodes := stubbed(t, ca, 3, storage, nil, nil)
		startAll(t, nodes, "a.example")
		time.Sleep(20 * time.Minute)
		nodes[0].Close()
		nodes[1].Close()
		nodes = append(nodes[2:], stubbed(t, ca, 1, storage, nil, nil)...)
		storage.notify(nodes...)
		startAll(t, nodes, "a.example")
		time.Sleep(40 * time.Minute)
		synctest.Wait()
		orders := ca.Placed("")
		if len(orders) < 4 || len(orders) > 6 {
			t.Errorf("%d orders in the first hour: %v", len(orders), orders)
		}
		for _, c := range nodes {
			if s := c.Status()[0]; s.Failures != len(orders) || !strings.Contains(s.Err.Error(), "the proof was wrong") || !s.Next.After(time.Now()) {
				t.Errorf("status: %+v, and there were %d", s, len(orders))
			}
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := len(ca.Placed("")) - len(orders); n < 12 || n > 50 {
			t.Errorf("%d orders in a day", n)
		}
	})
}

// An old nonce does not count as a failure.
func TestOldNonceIsNoFailure(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ca := testca.New(t, testca.Config{Trusting: true})
		ca.Refuse(func(r testca.Request) *testca.Refusal {
			if r.Op == "order" && ca.Asked("order") < 4 {
				return testca.Problem(400, "badNonce", "too old", "")
			}
			return nil
		})
		c := stubbed(t, ca, 1, newMemStorage(), nil, nil)[0]
		startAll(t, []*Certs{c}, "a.example")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		settle(t, c)
	})
}

// An authority that cannot be reached is asked again soon, and that does not count as a failure.
func TestUnreachableAuthority(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ca := testca.New(t, testca.Config{Trusting: true})
		var down atomic.Bool
		down.Store(true)
		c := stubbed(t, ca, 1, newMemStorage(), nil, func(c *Certs) {
			through := backoff.HTTPClientOf(acmeIssuer(c))
			next := through.Transport
			through.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
				if down.Load() {
					return nil, errInjected
				}
				return next.RoundTrip(r)
			})
		})[0]
		startAll(t, []*Certs{c}, "a.example")
		time.Sleep(10 * time.Minute)
		if s := c.Status()[0]; !errors.Is(s.Err, errInjected) || s.Failures != 0 || time.Until(s.Next) > 2*backoff.RetryLimit {
			t.Errorf("status: %+v", s)
		}
		down.Store(false)
		time.Sleep(2 * backoff.RetryLimit)
		synctest.Wait()
		settle(t, c)
	})
}

// Every node says that the renewal of a certificate was refused, if it is due, and not only the
// node that had ordered.
func TestRefusedRenewalIsTheClusters(t *testing.T) {
	storage := newMemStorage()
	node := func() *backoff.Backoff {
		return backoff.New(func(key string) ([]byte, bool) {
			raw, err := storage.Load(t.Context(), key)
			return raw, err == nil
		}, func() string { return "n" }, storage, slog.New(slog.DiscardHandler))
	}
	node().Fail(t.Context(), "a.example", errInjected, backoff.Failure{})
	for name, test := range map[string]struct {
		domain string
		from   time.Duration // of its validity, from now
		due    time.Duration // before now
		known  error
		want   string
	}{
		"due":             {"a.example", -time.Hour, time.Minute, nil, "there is no newer certificate: " + errInjected.Error()},
		"not due":         {"a.example", -time.Hour, -time.Minute, nil, ""},
		"due, not asked":  {"b.example", -time.Hour, time.Minute, nil, ""},
		"of an older one": {"a.example", time.Minute, time.Minute, nil, ""},
		"known otherwise": {"a.example", -time.Hour, time.Minute, errNotValid, errNotValid.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			s := Status{Domain: test.domain, NotBefore: time.Now().Add(test.from), Renewal: time.Now().Add(-test.due), Err: test.known}
			s.refused(node())
			got := ""
			if s.Err != nil {
				got = s.Err.Error()
			}
			shown := test.want != "" && test.known == nil
			if got != test.want || (s.Failures == 1) != shown || s.Next.After(time.Now()) != shown {
				t.Errorf("%q, %d failures, next at %v; want %q", got, s.Failures, s.Next, test.want)
			}
		})
	}
}
