package clustertest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/vip"
)

// floating returns a program that serves at a floating address on a link in memory.
func floating(link *vip.Memory, addr netip.Prefix) func(context.Context, flotilla.Config) error {
	return func(ctx context.Context, cfg flotilla.Config) error {
		cfg.Drain.Grace = -1
		n, err := flotilla.Open(ctx, cfg)
		if err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() {
			ended <- vip.Run(ctx, n, vip.Config{Addr: addr, Binder: link.Machine(cfg.Name), Logger: cfg.Logger})
		}()
		err = n.Serve(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, cfg.Name)
		}), "api.test")
		return errors.Join(err, <-ended, n.Shutdown(context.WithoutCancel(ctx)))
	}
}

// A client of a floating address reaches the machine that has it. No request fails when it moves as
// planned. When its owner is killed, or cut off, another machine answers soon, and no two do.
func TestFloatingAddress(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		link, addr := vip.NewMemory(), netip.MustParsePrefix("192.0.2.100/24")
		c := clustertest.Start(t, clustertest.Options{Nodes: 3, Run: floating(link, addr), Link: link})
		c.Settle()
		client := c.ClientAt(addr.Addr())
		owner := func() int {
			t.Helper()
			client.CloseIdleConnections()
			who := get(t, client, "https://api.test/")
			if owners := link.Owners(addr.Addr()); len(owners) != 1 || owners[0] != who {
				t.Errorf("%s answers, and %v have the address", who, owners)
			}
			return int(who[1] - '0')
		}

		stop := c.Load(client, "https://api.test/")
		for range 3 {
			i := owner()
			c.Stop(i)
			c.Restart(i)
			c.Settle()
		}
		t.Logf("%d requests were answered", stop())

		i := owner()
		c.Kill(i)
		began := time.Now()
		if j := owner(); j == i {
			t.Errorf("n%d is dead and answers", i)
		}
		killed := time.Since(began)
		c.Restart(i)
		c.Settle()

		i = owner()
		c.Isolate(i)
		began = time.Now()
		if j := owner(); j == i {
			t.Errorf("n%d is cut off and answers", i)
		}
		t.Logf("another one answers %v after a kill, and %v after the loss of a machine", killed, time.Since(began))
		c.Heal()
		c.Settle()
		for _, o := range link.Overlaps() {
			t.Errorf("%v was answered for by %v at a time", o.Addr, o.Hosts)
		}
	})
}

// A process that dies at a step leaves its address to its guard, as one that is killed. After a
// failure of all machines nobody has been told of a death, and one of them has the address again.
func TestFloatingAddressWithFaults(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		link, addr := vip.NewMemory(), netip.MustParsePrefix("192.0.2.100/24")
		c := clustertest.Start(t, clustertest.Options{Nodes: 3, Run: floating(link, addr), Link: link})
		c.Settle()
		client := c.ClientAt(addr.Addr())
		owner := func() string {
			t.Helper()
			client.CloseIdleConnections()
			return get(t, client, "https://api.test/")
		}
		who := owner()
		i := int(who[1] - '0')
		c.KillAt(i, "here")
		if err := c.Step(i, "here"); !errors.Is(err, flotilla.ErrClosed) {
			t.Errorf("the step returns %v", err)
		}
		began := time.Now()
		c.AwaitKill(i)
		if next := owner(); next == who || time.Since(began) > 500*time.Millisecond {
			t.Errorf("%s answers after %s has died, after %v", next, who, time.Since(began))
		}
		c.Restart(i)
		c.Settle()

		c.KillAll()
		if owners := link.Owners(addr.Addr()); len(owners) != 0 {
			t.Errorf("%v answer, and all are dead", owners)
		}
		for i := range c.Nodes {
			c.Restart(i)
		}
		c.Settle()
		owner()
		for _, o := range link.Overlaps() {
			t.Errorf("%v was answered for by %v at a time", o.Addr, o.Hosts)
		}
	})
}
