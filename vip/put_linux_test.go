package vip

import "testing"

// A process that has stood still past its lease puts no address in place, and has nothing to take back.
func TestPutAfterTheLease(t *testing.T) {
	p := &kernelPlace{changed: make(chan struct{})}
	if err := p.put(); err != errLapsed { // the very one: what is joined with it says that something was put
		t.Errorf("an address is put in place without a lease: %v", err)
	}
}
