package flotilla

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/certs"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// What a compromised key has vouched for ends everywhere, wherever the key was kept.
func TestTicketsOfACompromisedKeyOfANodesOwn(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), func(c *Config) { c.TLS.PerNode = true })
		awaitTickets(t, nodes, hasCurrent)
		before := nodes[0].store.State().Tickets
		_, rest := leaderOf(t, nodes)
		if err := certStorage(rest[0]).Store(t.Context(), "certificates/ca/a.test/a.test.key.compromised", []byte("x")); err != nil {
			t.Fatal(err)
		}
		if now := nodes[0].store.State().Tickets; now != nil && slices.ContainsFunc(append(now.Previous, now.Current), func(k []byte) bool { return bytes.Equal(k, before.Current) }) {
			t.Error("tickets of before are accepted")
		}
	})
}

// A watcher of the status sees changes of certificates, even if nothing else changes.
func TestWatchTellsOfCertificates(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		answer, answers := stubca.Barrier()
		ready, enter := stubca.Barrier()
		var refuse atomic.Bool
		var orders *certmagic.Config
		n := fleet(t, simnet.New(), []string{"a"}, func(c *Config) {
			c.TLS.Configure = func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
				orders = cfg
				cfg.Issuers = []certmagic.Issuer{&stubca.Issuer{Issuer: devca.Issuer{Storage: cfg.Storage}, Fails: func() error {
					if refuse.Load() {
						return errors.New("refused")
					}
					return answer(t.Context())
				}}}
			}
			c.certs = func(c *certs.Config) {
				offline(c)
				c.Ready = ready
			}
		})[0]
		var last Status
		ended := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer close(ended)
			for s := range n.Watch(ctx) {
				last = s
			}
		}()
		check := func(when string) {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			if !sameStatus(last, n.Status()) {
				t.Errorf("%s: the newest status yielded has %+v, and the status %+v", when, last.Certificates, n.Status().Certificates)
			}
		}
		check("nothing")
		serveNames(t, []*Node{n}, "a.test")
		check("a name")
		serveNames(t, []*Node{n}, "b.test")
		check("another name")
		enter()
		check("self-signed")
		if s := n.Status().Certificates; !s[0].SelfSigned || !s[1].SelfSigned {
			t.Errorf("before the authority has answered: %+v", s)
		}
		answers()
		check("obtained")
		if s := n.Status().Certificates; s[0].Serial == "" || s[0].Err != "" {
			t.Errorf("after the authority has answered: %+v", s)
		}
		refuse.Store(true)
		if err := orders.RenewCertSync(t.Context(), "a.test", true); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("a renewal that the authority refuses: %v", err)
		}
		check("not renewed")
		if s := n.Status().Certificates; s[0].Err == "" {
			t.Errorf("after a renewal that was refused: %+v", s)
		}
		refuse.Store(false)
		if err := orders.RenewCertSync(t.Context(), "a.test", true); err != nil {
			t.Error(err)
		}
		check("renewed")
		if s := n.Status().Certificates; s[0].Err != "" {
			t.Errorf("after a renewal: %+v", s)
		}
		cancel()
		<-ended
	})
}

// Keys that were dropped stay dropped on a node that is started alone.
func TestDroppedTicketsStayDropped(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		awaitTickets(t, nodes, hasCurrent)
		if err := nodes[0].Storage().Store(t.Context(), "certificates/ca/a.test/a.test.crt", []byte("x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		before := nodes[2].store.State().Tickets
		if err := nodes[0].DropTickets(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(replica.SnapshotQuiet + replica.SnapshotJitter + time.Second)
		for _, n := range nodes {
			if n != nodes[2] {
				net.Host(n.self.Name).Kill()
			}
			n.Close()
		}
		alone := reviewReopen(t, nodes[2])
		time.Sleep(time.Second)
		if alone.store.State().Index == 0 {
			t.Fatal("it has no snapshot")
		}
		if now := alone.store.State().Tickets; now != nil && bytes.Equal(now.Current, before.Current) {
			t.Fatal("a key that was dropped is in use")
		}
	})
}
