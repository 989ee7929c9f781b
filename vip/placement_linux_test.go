package vip

import "testing"

// A process that has stood still past its lease puts no address in place, and has nothing to
// remove.
func TestPutAfterTheLease(t *testing.T) {
	s, entries := testSystem(1)
	p := placement{entry: entries[0], system: s}
	// errExpired joined with another error would mean that the address was put in place.
	if err := p.put(); err != errExpired {
		t.Errorf("an address is put in place without a lease: %v", err)
	}
}
