package netlab

import (
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/netlab/namespace"
	"github.com/flotilla-ha/flotilla/internal/netlab/span"
)

// faults switches the faults of the network on and off, and records when which was on.
type faults struct {
	filters *filters

	mu      sync.Mutex
	now     network
	history []network // oldest first; the last is now
}

func newFaults(bridge *namespace.Namespace, ports []int) (*faults, error) {
	filters, err := newFilters(bridge, ports)
	if err != nil {
		return nil, err
	}
	now := newNetwork(len(ports))
	return &faults{filters: filters, now: now, history: []network{now.clone()}}, nil
}

func (f *faults) close() error { return f.filters.close() }

// change changes the network, and records the change when it is in force.
func (f *faults) change(apply func(*network)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := f.now.clone()
	apply(&next)
	if err := f.filters.set(next); err != nil {
		return err
	}
	next.since = time.Now()
	f.now = next
	f.history = append(f.history, next.clone())
	return nil
}

// connected returns true if the link of a host should be up.
func (f *faults) connected(host int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.now.down[host] && !f.now.cut[host]
}

func (f *faults) delivers(from, to int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now.delivers(from, to)
}

// joined returns the periods in which two hosts could reach each other in both directions.
func (f *faults) joined(a, b int) (periods []span.Span) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, n := range f.history {
		if !n.delivers(a, b) || !n.delivers(b, a) {
			continue
		}
		s := span.Span{From: n.since, To: time.Now()}
		if i+1 < len(f.history) {
			s.To = f.history[i+1].since
		}
		periods = append(periods, s)
	}
	return periods
}
