package freeport

import (
	"net/netip"
	"testing"
)

func TestAddrs(t *testing.T) {
	addrs, err := Addrs(200)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, addr := range addrs {
		ap, err := netip.ParseAddrPort(addr)
		if err != nil || !ap.Addr().IsLoopback() || ap.Port() < first || ap.Port() > last {
			t.Errorf("%s: %v; want loopback, and a port of the range", addr, err)
		}
		if seen[addr] {
			t.Errorf("%s is there twice", addr)
		}
		seen[addr] = true
	}
}
