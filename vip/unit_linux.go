package vip

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/guard"
)

// maxClaims is how many claims by other machines wait for a Run.
const maxClaims = 16

// entry is what the parts of a system share about one unit of addresses. units.mu guards it, except
// for addrs and claims, which never change.
type entry struct {
	addrs  []netip.Addr
	claims chan *ConflictError // by other machines

	placed   []guard.Addr // in the kernel, or about to be, or perhaps still there
	removals uint64       // of the guard, as last seen
	missing  bool         // an address is not in the kernel
	unsure   bool         // an address may not be in the kernel
	moved    bool         // neighbours may look for the addresses in the wrong place
	renewed  bool         // the addresses are in the kernel, and their lifetimes are to be renewed
	since    time.Time    // they are in place and announced; zero: they are not
	where    nic          // they are
	until    time.Time    // end of the lease, as last extended; zero: there is no tenure
	kept     bool         // there is no lease, and the addresses stay until then
	asks     bool         // Run follows the lease, and asks when to extend
	changed  chan struct{}
}

func newEntry(addrs []netip.Addr) *entry {
	return &entry{addrs: addrs, changed: make(chan struct{}), claims: make(chan *ConflictError, maxClaims)}
}

// leased reports whether the addresses are in use under the lease. units.mu is held.
func (e *entry) leased() bool { return !e.until.IsZero() && !e.kept }

// wake closes the channel of those who wait for a change. units.mu is held.
func (e *entry) wake() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// units are the entries of a system. mu also guards what the parts of the system know about all of
// them, such as the end of the lease.
type units struct {
	mu  sync.Mutex
	all map[*entry]struct{}
}

func newUnits() *units { return &units{all: make(map[*entry]struct{})} }

// add adds an entry.
func (u *units) add(e *entry) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all[e] = struct{}{}
}

// remove removes an entry. It reports whether its addresses may still be in the kernel.
func (u *units) remove(e *entry) (left bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.all, e)
	return len(e.placed) > 0
}

// changed returns a channel that is closed when an entry changes.
func (u *units) changed(e *entry) <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	return e.changed
}

// placed returns what may be in the kernel for an entry.
func (u *units) placed(e *entry) []guard.Addr {
	u.mu.Lock()
	defer u.mu.Unlock()
	return e.placed
}

// takeMoved reports whether neighbours may look in the wrong place, and resets that.
func (u *units) takeMoved(e *entry) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	moved := e.moved
	e.moved = false
	return moved
}

// takeMissing reports whether addresses are, or may be, missing in the kernel, and resets that.
func (u *units) takeMissing(e *entry) (missing, unsure bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	missing, unsure = e.missing, e.unsure
	e.missing, e.unsure = false, false
	return missing, unsure
}

// bound records that an entry's addresses are in place and have been announced.
func (u *units) bound(e *entry, on nic) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if e.since.IsZero() || e.where != on {
		e.since, e.where = time.Now(), on
	}
}

// inPlace returns the addresses in place, by interface.
func (u *units) inPlace() map[nic][]netip.Addr {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := make(map[nic][]netip.Addr)
	for e := range u.all {
		if !e.since.IsZero() {
			all[e.where] = append(all[e.where], e.addrs...)
		}
	}
	return all
}

// observe wakes the entries that a change of an interface or address may concern.
func (u *units) observe(n news) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for e := range u.all {
		switch {
		case slices.Contains(e.placed, n.gone):
			e.unsure = true // the news may be old, if this process stood still
		case n.gone.Prefix.IsSingleIP():
			continue // neither one of these nor one that an interface is found by
		case slices.ContainsFunc(e.placed, func(a guard.Addr) bool { return slices.Contains(n.moved, a.Index) }):
			e.moved = true
		}
		e.wake()
	}
}

// suspect makes all entries check everything, because news were lost.
func (u *units) suspect() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for e := range u.all {
		e.unsure, e.moved = true, true
		e.wake()
	}
}
