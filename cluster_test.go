package flotilla_test

import (
	"fmt"
	"testing"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// load reads key on every live node.
func wantEverywhere(t *testing.T, c *clustertest.Cluster, key, want string) {
	t.Helper()
	for _, i := range c.Live() {
		got, err := c.Nodes[i].Storage().Load(t.Context(), key)
		if err != nil || string(got) != want {
			t.Errorf("n%d has %q at %s, %v; want %q", i, got, key, err, want)
		}
	}
}

func store(t *testing.T, n *flotilla.Node, key, value string) {
	t.Helper()
	if err := n.Storage().Store(t.Context(), key, []byte(value)); err != nil {
		t.Errorf("storing %s: %v", key, err)
	}
}

func TestWriteAnywhereReadEverywhere(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		for i, n := range c.Nodes {
			key := fmt.Sprintf("by/n%d", i)
			store(t, n, key, key)
			wantEverywhere(t, c, key, key) // at once, on every node
		}
	})
}

func TestLeaderIsKilled(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := clustertest.New(t, 3, nil)
		c.Settle()
		store(t, c.Nodes[0], "before", "1")
		dead := c.Leader()
		c.Kill(dead)
		live := c.Live()
		store(t, c.Nodes[live[0]], "while", "2")
		wantEverywhere(t, c, "before", "1")
		wantEverywhere(t, c, "while", "2")
		c.Restart(dead)
		c.Settle()
		wantEverywhere(t, c, "while", "2")
	})
}
