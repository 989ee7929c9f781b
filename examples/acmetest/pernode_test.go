package acmetest

import (
	"net"
	"testing"
)

// With TLS.PerNode each node has a certificate and a key of its own, whose challenge the others answer, and has them after a restart.
func TestPerNode(t *testing.T) {
	for _, challenge := range []string{http01, tlsALPN} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			f := startFleet(t, options{challenge: challenge, perNode: true})
			keys := make(map[string]bool)
			serials := make([]string, len(f.nodes))
			for i, m := range f.nodes {
				leaf, err := m.shake(t.Context(), home)
				if err != nil {
					t.Fatal(err)
				}
				keys[string(leaf.RawSubjectPublicKeyInfo)] = true
				serials[i] = leaf.SerialNumber.Text(16)
			}
			if n := f.ca.orders.Load(); len(keys) != 3 || n != 3 {
				t.Errorf("%d keys and %d orders for three nodes", len(keys), n)
			}
			for _, orderer := range f.nodes {
				name := "of-" + orderer.settings.Name + "." + zone
				f.ca.resolve(func(string) []net.IP { return f.without(orderer) })
				if _, err := orderer.ask(t.Context(), question{Ask: askAdd, Name: name}); err != nil {
					t.Fatal(err)
				}
				answeredByOthers(t, orderer, f.others(orderer), name)
			}
			orders := f.ca.orders.Load()
			for _, m := range f.nodes {
				m.kill()
			}
			if err := f.start(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i, m := range f.nodes {
				if _, err := m.serves(t.Context(), home, serial(serials[i])); err != nil {
					t.Error(err)
				}
			}
			if n := f.ca.orders.Load() - orders; n != 0 {
				t.Errorf("%d orders after a restart, want none", n)
			}
			if n := f.ca.accounts.Load(); n != 1 {
				t.Errorf("%d accounts were opened, want 1", n)
			}
		})
	}
}
