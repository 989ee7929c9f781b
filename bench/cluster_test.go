package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/bench/internal/proc"
)

const readyTimeout = time.Minute // of a cluster

// freeAddrs returns addresses on loopback whose ports are free now.
func freeAddrs(b testing.TB, n int) []string {
	b.Helper()
	addrs, err := proc.FreeAddrs(n)
	if err != nil {
		b.Fatal(err)
	}
	return addrs
}

// cluster is three nodes of flotilla in this process, on loopback, with files.
type cluster struct {
	nodes  []*flotilla.Node
	secret flotilla.Secret
}

func newCluster(b testing.TB) *cluster {
	b.Helper()
	return startCluster(b, b.TempDir(), freeAddrs(b, 3), flotilla.NewSecret())
}

// startCluster starts a node for each address, with a directory in dir, and waits until all are
// ready.
func startCluster(b testing.TB, dir string, addrs []string, secret flotilla.Secret) *cluster {
	b.Helper()
	c := &cluster{secret: secret}
	for i, addr := range addrs {
		n, err := flotilla.Open(b.Context(), flotilla.Config{
			Dir:     filepath.Join(dir, fmt.Sprint(i)),
			Name:    fmt.Sprintf("n%d", i),
			Addr:    addr,
			Secrets: []flotilla.Secret{secret},
			Peers:   flotilla.Static(addrs...),
			Expect:  len(addrs),
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { n.Close() })
		c.nodes = append(c.nodes, n)
	}
	ctx, cancel := context.WithTimeout(b.Context(), readyTimeout)
	defer cancel()
	for _, n := range c.nodes {
		if err := n.Ready(ctx); err != nil {
			b.Fatal(err)
		}
	}
	return c
}

// follower returns a node that does not lead.
func (c *cluster) follower(b testing.TB) *flotilla.Node {
	b.Helper()
	i := slices.IndexFunc(c.nodes, func(n *flotilla.Node) bool { s := n.Status(); return s.Leader != "" && s.Leader != s.ID })
	if i < 0 {
		b.Fatal("no node follows another")
	}
	return c.nodes[i]
}

// leader returns the node that leads.
func (c *cluster) leader(b testing.TB) *flotilla.Node {
	b.Helper()
	i := slices.IndexFunc(c.nodes, func(n *flotilla.Node) bool { s := n.Status(); return s.Leader == s.ID })
	if i < 0 {
		b.Fatal("no node leads")
	}
	return c.nodes[i]
}

// writer returns a function that stores a value on a node.
func writer(n *flotilla.Node) func(ctx context.Context, key string, value []byte) error {
	return n.Storage().Store
}
