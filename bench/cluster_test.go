package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/freeport"
)

const readyTimeout = time.Minute // of a cluster

// freeAddrs returns addresses on loopback whose ports are free now.
func freeAddrs(b testing.TB, n int) []string {
	b.Helper()
	addrs, err := freeport.Addrs(n)
	if err != nil {
		b.Fatal(err)
	}
	return addrs
}

// cluster is three nodes of flotilla in this process, on loopback, with files.
type cluster struct {
	nodes  []*flotilla.Node
	secret flotilla.Secret
	dir    string // has the nodes' directories, and the files of their secrets
	addrs  []string
}

func (c *cluster) secretsFile(i int) string { return filepath.Join(c.dir, fmt.Sprint("secrets", i)) }

// give writes the file of secrets of a node.
func (c *cluster) give(b testing.TB, i int, secrets ...flotilla.Secret) {
	b.Helper()
	var lines strings.Builder
	for _, s := range secrets {
		fmt.Fprintln(&lines, s.Encode())
	}
	if err := os.WriteFile(c.secretsFile(i), []byte(lines.String()), 0o600); err != nil {
		b.Fatal(err)
	}
}

func newCluster(b testing.TB) *cluster {
	b.Helper()
	return startCluster(b, b.TempDir(), freeAddrs(b, 3), flotilla.NewSecret())
}

// startCluster starts a node for each address, with a directory in dir, and waits until all are
// ready. The nodes read the secret from the files of secretsFile.
func startCluster(b testing.TB, dir string, addrs []string, secret flotilla.Secret) *cluster {
	b.Helper()
	c := &cluster{secret: secret, dir: dir, addrs: addrs}
	for i, addr := range addrs {
		c.give(b, i, secret)
		n, err := flotilla.Open(b.Context(), flotilla.Config{
			Dir:         filepath.Join(dir, fmt.Sprint(i)),
			Name:        fmt.Sprintf("n%d", i),
			Addr:        addr,
			SecretsFile: c.secretsFile(i),
			Peers:       flotilla.Static(addrs...),
			Expect:      len(addrs),
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
