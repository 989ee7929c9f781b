package certs

import (
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

const farAhead = 100 * 24 * time.Hour // more than the life of a certificate

// The authority's clock counts as that of a peer: a single node has no other one.
func TestAuthoritysClock(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ca := testca.New(t, testca.Config{Trusting: true})
		c := stubbed(t, ca, 1, newMemStorage(), nil, nil)[0]
		ca.SetClock(-farAhead)
		startAll(t, []*Certs{c}, "a.example")
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if n := len(ca.Placed("")); n == 0 || n > 3 {
			t.Errorf("%d orders in two hours of certificates that have expired when they come, want very few", n)
		}
		if s := c.Status()[0]; s.Err == nil || !strings.Contains(s.Err.Error(), "clock") {
			t.Errorf("status: %+v", s)
		}
		ca.SetClock(0)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		settle(t, c)
	})
}

// A node whose clock is wrong deletes nothing: what has expired by its clock may be in use.
func TestWrongClockDeletesNothing(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		c := devCerts(t, storage, nil)
		if err := c.loader.config.ObtainCertSync(t.Context(), "a.example"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(devca.LeafLife + time.Hour)
		key := certmagic.StorageKeys.SiteCert(keyspace.DevIssuer, "a.example")
		for _, ahead := range []time.Duration{-farAhead, 0} {
			c.orders.clocks.Observe("b", time.Now().Add(ahead), time.Now())
			c.sweeper.Clean(t.Context(), storage, 0)
			if got, want := storage.Exists(t.Context(), key), ahead != 0; got != want {
				t.Errorf("the others' clocks are ahead by %v: the expired certificate is there: %v, want %v", ahead, got, want)
			}
		}
	})
}
