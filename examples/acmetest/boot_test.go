package acmetest

import (
	"fmt"
	"testing"
)

// Three nodes that boot for the first time, with the same twenty names, order each certificate once, on one account.
func TestFirstBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("orders are limited to ten in ten seconds: it takes that long twice")
	}
	t.Parallel()
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("site-%d.%s", i, zone))
	}
	f := startFleet(t, options{domains: names})
	for _, name := range names {
		for _, m := range f.nodes {
			if _, err := m.ask(t.Context(), question{Ask: askAdd, Name: name}); err != nil {
				t.Fatal(err)
			}
		}
		leaf, err := f.nodes[0].shake(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range f.nodes[1:] {
			if _, err := m.serves(t.Context(), name, serial(leaf.SerialNumber.Text(16))); err != nil {
				t.Error(err)
			}
		}
	}
	if n := f.ca.Orders.Load(); n != int64(len(names)) {
		t.Errorf("%d orders for %d names", n, len(names))
	}
	if n := f.ca.accounts.Load(); n != 1 {
		t.Errorf("%d accounts were opened, want 1", n)
	}
}
