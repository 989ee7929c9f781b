package acmetest

import (
	"fmt"
	"testing"
)

// Three new nodes with the same twenty names order each certificate once, on one account.
func TestFirstBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 20 seconds: certmagic limits orders to ten in ten seconds; it runs without -short")
	}
	t.Parallel()
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("site-%d.%s", i, zone))
	}
	c := startCluster(t, options{domains: names})
	for _, name := range names {
		for _, m := range c.nodes {
			if _, err := m.ask(t.Context(), question{Ask: askAdd, Name: name}); err != nil {
				t.Fatal(err)
			}
		}
		leaf, err := c.nodes[0].shake(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range c.nodes[1:] {
			if _, err := m.serves(t.Context(), name, serial(leaf.SerialNumber.Text(16))); err != nil {
				t.Error(err)
			}
		}
	}
	if n := c.ca.Orders.Load(); n != int64(len(names)) {
		t.Errorf("%d orders for %d names", n, len(names))
	}
	if n := c.ca.accounts.Load(); n != 1 {
		t.Errorf("%d accounts were opened, want 1", n)
	}
}
