package netlab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Watcher records who has some addresses: in the kernels of all nodes, and on the wire as each client sees it.
type Watcher struct {
	lab     *Lab
	addrs   []netip.Addr
	kernels *kernels
	askers  []*asker

	mu      sync.Mutex
	changed chan struct{} // closed at the next change in a kernel
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
		a, err := newAsker(c, i, interval, addrs)
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

// Close ends watching; what was recorded can be asked for all the same. Its error says what was missed, if anything was: figures
// of a watcher that has missed something are worth nothing.
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

// Await waits until every address has one owner in the kernels, and accept, if not nil, likes the owners, which are in the order of the
// addresses.
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
				faults = append(faults, errors.New("not the owners that were waited for"))
			}
			return errors.Join(append(faults, context.Cause(ctx))...)
		}
	}
}

// Held is a period in which a node had an address in its kernel.
type Held struct {
	// Node is the name of the node.
	Node string
	// From is when the kernel said that it has the address.
	From time.Time
	// To is when it said that it has not; zero if it still has.
	To time.Time
}

// History returns who had the address in their kernels, in order.
func (w *Watcher) History(addr netip.Addr) []Held {
	var all []Held
	for i, spans := range w.kernels.spans(addr, time.Now()) {
		for _, s := range spans {
			h := Held{Node: w.lab.Nodes[i].Name, From: s.from}
			if !s.open {
				h.To = s.to
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
	// TwoInKernels is the time in which two nodes or more had it in their kernels. Kernels are read by one thread, whose delay is its
	// error: up to a millisecond on a busy machine.
	TwoInKernels Extent
	// TwoOnWire is the time in which two answered for it: to the same question, or to those of two clients that could reach one another. A
	// question whose answers came from two counts as one interval.
	TwoOnWire Extent
	// NoneInKernels is the time in which no node had it.
	NoneInKernels Extent
	// Unanswered has, for each client, the time in which nobody answered it.
	Unanswered []Extent
}

// Report returns what was seen from one time to another of each address.
func (w *Watcher) Report(from, to time.Time) []Ownership {
	whole := span{from, to}
	var all []Ownership
	for _, addr := range w.addrs {
		o := Ownership{Addr: addr}
		var lists [][]span
		var held []span
		for _, spans := range w.kernels.spans(addr, to) {
			var mine []span
			for _, s := range spans {
				if c, ok := s.clip(whole); ok {
					mine = append(mine, c)
				}
			}
			lists, held = append(lists, mine), append(held, mine...)
		}
		o.TwoInKernels = extent(twice(lists))
		o.NoneInKernels = extent(gaps(whole, held))
		o.TwoOnWire = extent(w.doubles(addr, whole))
		for _, a := range w.askers {
			o.Unanswered = append(o.Unanswered, extent(a.unanswered(addr, whole)))
		}
		all = append(all, o)
	}
	return all
}

// doubles returns the periods in which two owners answered.
func (w *Watcher) doubles(addr netip.Addr, whole span) (all []span) {
	for i, a := range w.askers {
		all = append(all, a.doubles(addr, whole)...)
		for j := range i {
			b := w.askers[j]
			// Both asked on the same network and one believes this, the other that.
			both := contradictions(a.answers(addr, whole), b.answers(addr, whole))
			all = append(all, intersect(both, w.lab.joined(a.client.index, b.client.index))...)
		}
	}
	return union(all)
}

// contradictions returns the periods in which two clients got answers from different owners.
func contradictions(a, b map[hardware][]span) (all []span) {
	for x, xs := range a {
		for y, ys := range b {
			if x != y {
				all = append(all, intersect(xs, ys)...)
			}
		}
	}
	return union(all)
}

// Announcement is a claim of an address that nobody had asked for.
type Announcement struct {
	// At is when a client received it.
	At time.Time
	// Client is the client's name.
	Client string
	// Addr is the address.
	Addr netip.Addr
	// Owner is the node that claims it; a hardware address if it is none of the lab.
	Owner string
	// Form is ARP's request or reply, or a neighbour advertisement.
	Form Form
	// Override is whether a neighbour advertisement replaces what is in caches.
	Override bool
	// Target is whether a neighbour advertisement has the target link-layer address.
	Target bool
}

// Announcements returns what was announced, in the order of receipt, by each client.
func (w *Watcher) Announcements() []Announcement {
	var all []Announcement
	for _, a := range w.askers {
		all = append(all, a.announced()...)
	}
	slices.SortStableFunc(all, func(a, b Announcement) int { return a.At.Compare(b.At) })
	return all
}

// Answerers returns the owners that answered a client's latest question about the address that was answered at all.
func (w *Watcher) Answerers(client int, addr netip.Addr) []string {
	return w.askers[client].latest(addr)
}
