package clustertest_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A balancer gives connections to ready nodes in turn, notices what dies, drains and comes back,
// and uses what is left when no node is ready.
func TestBalancer(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Serve(namesItself)
		c.Settle()
		b := c.Balancer()
		client := b.Client()
		ready := func(want ...int) {
			t.Helper()
			if diff := cmp.Diff(want, b.Ready()); diff != "" {
				t.Errorf("ready nodes (-want +got):\n%s", diff)
			}
		}
		ready(0, 1, 2)
		if diff := cmp.Diff(map[string]int{"n0": 2, "n1": 2, "n2": 2}, answers(t, client, 6)); diff != "" {
			t.Errorf("who answers (-want +got):\n%s", diff)
		}
		c.Kill(1)
		if got := answers(t, client, 6); got["n1"] != 0 { // the next node gets what it refuses
			t.Errorf("a dead node answers: %v", got)
		}
		time.Sleep(2 * time.Second)
		ready(0, 2)
		c.Kill(2)
		time.Sleep(5 * time.Second)
		ready(0) // it lives and is not ready, since there is no quorum
		if got := answers(t, client, 2); got["n0"] != 2 {
			t.Errorf("without a quorum: %v", got)
		}
		c.Restart(1)
		c.Restart(2)
		c.Settle()
		time.Sleep(2 * time.Second)
		ready(0, 1, 2)
	})
}

// Behind a balancer no request fails in a rolling restart, since the nodes drain for longer than
// its checks take.
func TestRollingRestartBehindBalancer(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Serve(namesItself)
		c.Settle()
		b := c.Balancer()
		stop := c.Load(http1(b.Client()), "https://api.test/")
		for i := range c.Nodes {
			c.Stop(i)
			c.Restart(i)
			c.Settle()
		}
		stop()
	})
}

// A connection to a machine that has vanished is cut with the request on it, and the client goes on
// elsewhere.
func TestBalancerCutsTheDead(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { cfg.Timing = flotilla.Fast })
		c.Serve(namesItself)
		c.Settle()
		client := c.Balancer().Client()
		if got := get(t, client, "https://api.test/"); got != "n0" {
			t.Fatalf("%s answers first", got)
		}
		c.Isolate(0)
		began := time.Now()
		if got, err := tryGet(client, "https://api.test/"); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Errorf("a request to a node that is cut off: %q, %v", got, err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
		if got := get(t, client, "https://api.test/"); got == "n0" {
			t.Error("a node that is cut off answers")
		}
		c.Heal()
		c.Settle()
	})
}
