package clustertest_test

import (
	"context"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// inBubble runs a test of a settled cluster of three nodes in a bubble.
func inBubble(t *testing.T, f func(t *testing.T, c *clustertest.Cluster)) {
	t.Helper()
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		f(t, c)
	})
}

// store stores a value, and returns how long that took.
func store(t *testing.T, n *flotilla.Node, key, value string) time.Duration {
	t.Helper()
	start := time.Now()
	if err := n.Storage().Store(t.Context(), key, []byte(value)); err != nil {
		t.Errorf("storing %s: %v", key, err)
	}
	return time.Since(start)
}

// wantEverywhere checks that all running nodes have a value.
func wantEverywhere(t *testing.T, c *clustertest.Cluster, key, want string) {
	t.Helper()
	for _, i := range c.Live() {
		if got, err := c.Nodes[i].Storage().Load(t.Context(), key); err != nil || string(got) != want {
			t.Errorf("n%d has %q at %s, %v; want %q", i, got, key, err, want)
		}
	}
}

// eventually waits until ok, for at most a minute.
func eventually(t *testing.T, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > time.Minute {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

// others returns the nodes of three but one.
func others(i int) (int, int) { return (i + 1) % 3, (i + 2) % 3 }

// hold has a node hold a role until the test ends or it loses it. What it returns says when it got
// the role and until when it had it; received from in this order.
func hold(t *testing.T, n *flotilla.Node, role string) (got <-chan flotilla.Tenure, lost <-chan time.Time) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	tenures, ends, done := make(chan flotilla.Tenure, 1), make(chan time.Time, 1), make(chan struct{})
	go func() {
		defer close(done)
		n.Hold(ctx, flotilla.Role{Name: role}, func(ctx context.Context, tenure flotilla.Tenure) error {
			tenures <- tenure
			<-ctx.Done()
			ends <- time.Now()
			return nil
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return tenures, ends
}
