package clustertest_test

import (
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// run is a program: main calls it with the configuration of a machine.
func run(ctx context.Context, cfg flotilla.Config) error {
	return flotilla.Serve(ctx, cfg, http.HandlerFunc(greet), "api.test")
}

func greet(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }

// No request fails while the nodes are restarted one after another.
func TestRollingRestart(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.Run(t, 3, run)
		c.Settle()
		stop := c.Load(c.Client(), "https://api.test/")
		for i := range c.Nodes {
			c.Stop(i)
			c.Restart(i)
			c.Settle()
		}
		t.Logf("%d requests were answered", stop())
	})
}
