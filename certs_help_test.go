package flotilla

import (
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/certs"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
)

// serveNames has each node serve names.
func serveNames(t *testing.T, nodes []*Node, names ...string) {
	t.Helper()
	for _, n := range nodes {
		if _, err := n.TLSConfig(names...); err != nil {
			t.Fatal(err)
		}
	}
}

// stubTLS has a node order at ca, and keeps it from the network. more, if not nil, configures the
// rest.
func stubTLS(c *Config, ca *testca.Authority, more func(*certmagic.Config)) {
	c.TLS = TLS{CA: ca.URL(), Configure: stubca.Configure(ca, more)}
	c.certs = offline
}

// offline keeps a node from the network.
func offline(c *certs.Config) { c.Lookup, c.Dial, c.Listen = stubca.Lookup, stubca.Dial, stubca.Listen }

// certStorage returns the storage that a node keeps its certificates in.
func certStorage(n *Node) certmagic.Storage {
	if n.cfg.TLS.PerNode {
		return n.own
	}
	return n.storage
}
