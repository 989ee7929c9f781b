package acmetest

import (
	"net"
	"testing"
)

// With TLS.PerNode each node has its own certificate and key. The others answer the challenges, and
// the node keeps the certificate when it restarts.
func TestPerNode(t *testing.T) {
	for _, challenge := range []string{http01, tlsALPN} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, options{challenge: challenge, perNode: true})
			keys := make(map[string]bool)
			serials := make([]string, len(c.nodes))
			for i, m := range c.nodes {
				leaf, err := m.shake(t.Context(), home)
				if err != nil {
					t.Fatal(err)
				}
				keys[string(leaf.RawSubjectPublicKeyInfo)] = true
				serials[i] = leaf.SerialNumber.Text(16)
			}
			if n := c.ca.Orders.Load(); len(keys) != 3 || n != 3 {
				t.Errorf("%d keys and %d orders for three nodes", len(keys), n)
			}
			for _, orderer := range c.nodes {
				name := "of-" + orderer.Name() + "." + zone
				c.ca.resolve(func(string) []net.IP { return c.without(orderer) })
				if _, err := orderer.ask(t.Context(), question{Ask: askAdd, Name: name}); err != nil {
					t.Fatal(err)
				}
				answeredByOthers(t, orderer, c.others(orderer), name)
			}
			orders := c.ca.Orders.Load()
			for _, m := range c.nodes {
				m.Kill()
			}
			if err := c.start(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i, m := range c.nodes {
				if _, err := m.serves(t.Context(), home, serial(serials[i])); err != nil {
					t.Error(err)
				}
			}
			if n := c.ca.Orders.Load() - orders; n != 0 {
				t.Errorf("%d orders after a restart, want none", n)
			}
			if n := c.ca.accounts.Load(); n != 1 {
				t.Errorf("%d accounts were opened, want 1", n)
			}
		})
	}
}
