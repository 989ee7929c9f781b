package flotilla_test

import (
	"crypto/ecdsa"
	"crypto/tls"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A second machine is taken over while the first eviction waits for the authority. What the second
// one knows is replaced at once.
func TestSecondEvictionDoesNotWait(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		ca := testca.New(t, testca.Config{Trusting: true})
		var down atomic.Bool
		down.Store(true)
		ca.Refuse(func(r testca.Request) *testca.Refusal {
			if r.Op == "revoke" && down.Load() {
				return testca.Problem(500, "serverInternal", "not now", "")
			}
			return nil
		})
		const name = "second.example"
		r := newSecrets(t, 5)
		r.Cluster = clustertest.New(t, 5, func(i int, c *flotilla.Config) {
			r.configure(i, c)
			c.TLS.Configure = stubca.Configure(ca, nil)
			flotilla.Offline(c)
			c.Timing = flotilla.WAN // less traffic in the hours
		})
		e := &evicting{r, 4}
		var serves []*tls.Config
		for _, n := range e.Nodes {
			cfg, err := n.TLSConfig(name)
			if err != nil {
				t.Fatal(err)
			}
			serves = append(serves, cfg)
		}
		e.Settle()
		time.Sleep(time.Minute)
		e.giveNext()
		e.evict(e.client(e.old, e.next), e.request("n4", e.old, e.next), 5)
		e.Kill(4)
		known := served(t, serves[0], name)
		third := flotilla.NewSecret()
		for i := range 3 {
			e.give(i, e.next, third)
		}
		e.give(3, e.next)
		time.Sleep(5 * time.Second)
		e.evict(e.client(e.next, third), e.request("n3", e.next, third), 5)
		old := func() bool {
			return served(t, serves[0], name).PublicKey.(*ecdsa.PublicKey).Equal(known.PublicKey)
		}
		for end := time.Now().Add(10 * time.Minute); old() && time.Now().Before(end); {
			time.Sleep(10 * time.Second)
		}
		if old() {
			t.Error("a key that the second one knows is in use")
		}
		down.Store(false)
		end := time.Now().Add(30 * time.Minute)
		for _, node := range []string{"n3", "n4"} {
			p := e.evict(e.client(e.next, third), e.request(node, e.next, third), 5)
			for !p.Done && time.Now().Before(end) {
				time.Sleep(time.Minute)
				p = e.evict(e.client(e.next, third), e.request(node, e.next, third), 5)
			}
			if !p.Done {
				t.Errorf("%s: %+v", node, p)
			}
		}
	})
}
