package netlab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/netlab/frame"
	"github.com/flotilla-ha/flotilla/internal/netlab/span"
)

// Watcher records who has some addresses: in the kernels of all nodes, and on the wire as each
// client sees it.
type Watcher struct {
	lab     *Lab
	addrs   []netip.Addr
	kernels *kernels
	askers  []*asker

	mu      sync.Mutex
	changed chan struct{} // closed by the next change in a kernel
}

// Watch begins to watch addresses. Every client asks for each of them every interval; 0 is 5 ms.
func (l *Lab) Watch(interval time.Duration, addrs ...netip.Addr) (*Watcher, error) {
	if interval == 0 {
		interval = 5 * time.Millisecond
	}
	w := &Watcher{lab: l, addrs: addrs, changed: make(chan struct{})}
	var err error
	if w.kernels, err = watchKernels(l.Nodes, addrs, w.notify); err != nil {
		return nil, err
	}
	for i, c := range l.Clients {
		a, err := newAsker(c, i, interval, addrs, l.ownerName)
		if err != nil {
			return nil, errors.Join(err, w.Close())
		}
		w.askers = append(w.askers, a)
	}
	return w, nil
}

func (w *Watcher) notify() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
}

// Close stops watching. The records stay available. Its error says what the watcher has missed:
// then its figures are worthless.
func (w *Watcher) Close() error {
	var errs []error
	for _, a := range w.askers {
		errs = append(errs, a.close())
	}
	return errors.Join(append(errs, w.kernels.close())...)
}

// Owners returns the nodes that have the address in their kernels now.
func (w *Watcher) Owners(addr netip.Addr) []*Host {
	var owners []*Host
	for i, spans := range w.kernels.spans(addr, time.Now()) {
		if n := len(spans); n > 0 && spans[n-1].open {
			owners = append(owners, w.lab.Nodes[i])
		}
	}
	return owners
}

// Await waits until every address has exactly one owner in the kernels and accept, if not nil,
// returns true. The owners are in the order of the addresses.
func (w *Watcher) Await(ctx context.Context, accept func(owners []*Host) bool) error {
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		owners := make([]*Host, len(w.addrs))
		var faults []error
		for i, addr := range w.addrs {
			if all := w.Owners(addr); len(all) == 1 {
				owners[i] = all[0]
			} else {
				faults = append(faults, fmt.Errorf("%s has %d owners", addr, len(all)))
			}
		}
		if len(faults) == 0 && (accept == nil || accept(owners)) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if len(faults) == 0 {
				faults = append(faults, errors.New("these are not the expected owners"))
			}
			return errors.Join(append(faults, context.Cause(ctx))...)
		}
	}
}

// Held is a period in which a node had an address in its kernel.
type Held struct {
	// Node is the name of the node.
	Node string
	// From is the time when the kernel reported the address.
	From time.Time
	// To is the time when the kernel reported its loss; zero if it still has the address.
	To time.Time
}

// History returns the nodes that had the address in their kernels, in order.
func (w *Watcher) History(addr netip.Addr) []Held {
	var all []Held
	for i, spans := range w.kernels.spans(addr, time.Now()) {
		for _, s := range spans {
			h := Held{Node: w.lab.Nodes[i].Name, From: s.From}
			if !s.open {
				h.To = s.To
			}
			all = append(all, h)
		}
	}
	slices.SortStableFunc(all, func(a, b Held) int { return a.From.Compare(b.From) })
	return all
}

// Ownership is what a watcher saw of one address in a period.
type Ownership struct {
	// Addr is the address.
	Addr netip.Addr
	// TwoInKernels is the time in which two nodes or more had it in their kernels. One thread reads
	// the events. Its delay is the error: up to a millisecond on a busy machine.
	TwoInKernels span.Extent
	// TwoOnWire is the time in which two nodes answered for it: the same question, or questions of
	// two clients that could reach each other. A question with answers from two counts as one
	// interval.
	TwoOnWire span.Extent
	// NoneInKernels is the time in which no node had it.
	NoneInKernels span.Extent
	// Unanswered has for each client the time in which nobody answered it.
	Unanswered []span.Extent
}

// Report returns what the watcher saw of each address from one time to another.
func (w *Watcher) Report(from, to time.Time) []Ownership {
	whole := span.Span{From: from, To: to}
	var all []Ownership
	for _, addr := range w.addrs {
		o := Ownership{Addr: addr}
		var lists [][]span.Span
		var held []span.Span
		for _, spans := range w.kernels.spans(addr, to) {
			var mine []span.Span
			for _, s := range spans {
				if c, ok := s.Clip(whole); ok {
					mine = append(mine, c)
				}
			}
			lists, held = append(lists, mine), append(held, mine...)
		}
		o.TwoInKernels = span.ExtentOf(span.Overlaps(lists))
		o.NoneInKernels = span.ExtentOf(span.Gaps(whole, held))
		o.TwoOnWire = span.ExtentOf(w.doubles(addr, whole))
		for _, a := range w.askers {
			o.Unanswered = append(o.Unanswered, span.ExtentOf(a.unanswered(addr, whole)))
		}
		all = append(all, o)
	}
	return all
}

// doubles returns the periods in which two owners answered.
func (w *Watcher) doubles(addr netip.Addr, whole span.Span) (all []span.Span) {
	for i, a := range w.askers {
		all = append(all, a.doubles(addr, whole)...)
		for j := range i {
			b := w.askers[j]
			// On one network one client gets this answer, the other client that one.
			both := contradictions(a.answers(addr, whole), b.answers(addr, whole))
			all = append(all, span.Intersect(both, w.lab.faults.joined(a.client.index, b.client.index))...)
		}
	}
	return span.Union(all)
}

// contradictions returns the periods in which two clients got answers from different owners.
func contradictions(a, b map[frame.MAC][]span.Span) (all []span.Span) {
	for x, xs := range a {
		for y, ys := range b {
			if x != y {
				all = append(all, span.Intersect(xs, ys)...)
			}
		}
	}
	return span.Union(all)
}

// Announcements returns the announcements that clients received, in the order of receipt.
func (w *Watcher) Announcements() []Announcement {
	var all []Announcement
	for _, a := range w.askers {
		all = append(all, a.announced()...)
	}
	slices.SortStableFunc(all, func(a, b Announcement) int { return a.At.Compare(b.At) })
	return all
}

// Answerers returns the owners that answered the latest question of a client about the address.
// Questions that nobody answered do not count.
func (w *Watcher) Answerers(client int, addr netip.Addr) []string {
	return w.askers[client].latest(addr)
}
