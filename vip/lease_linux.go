package vip

import "time"

// sharedLease is the lease as fence and guard know it. The lease belongs to the program, so all
// units have the same one. units.mu guards its fields.
type sharedLease struct {
	units *units
	table *table
	guard *guardian

	until time.Time // as last passed to fence and guard
	// driver is the entry whose Run is asked to follow each renewal; nil: there is none yet. One is
	// enough for all.
	driver *entry
}

// extend records until when an entry may have its addresses, and extends fence and guard. With kept
// there is no lease, and the addresses stay until then. What all entries say comes to one time, so
// fence and guard do not get small changes.
func (l *sharedLease) extend(e *entry, until time.Time, kept bool) error {
	l.units.mu.Lock()
	defer l.units.mu.Unlock()
	e.until, e.kept = until, kept
	if kept {
		e.asks = false
		if l.driver == e {
			l.driver = nil
			l.drive()
		}
	}
	// Entries without a lease do not lengthen the lease of the others. While there is a lease it
	// counts for them too.
	for other := range l.units.all {
		switch {
		case other.leased() == e.leased():
			if other.until.After(until) {
				until = other.until
			}
		case other.leased():
			return nil
		}
	}
	left := time.Until(until)
	if more := until.Sub(l.until); left <= 0 || more >= 0 && more < left/4 {
		return nil
	}
	l.guard.extend(until)
	if err := l.table.extend(until); err != nil {
		return err
	}
	l.until = until
	return nil
}

// drives reports whether the Run of e is the one that is asked to follow each renewal.
func (l *sharedLease) drives(e *entry) bool {
	l.units.mu.Lock()
	defer l.units.mu.Unlock()
	e.asks = true
	if l.driver == nil {
		l.driver = e
	}
	return l.driver == e
}

// drive chooses another driver: an entry whose Run follows the lease. One that is still putting its
// addresses in place is not suitable, because that may take longer than the lease. units.mu is
// held.
func (l *sharedLease) drive() {
	for e := range l.units.all {
		if e.leased() && e.asks {
			l.driver = e
			e.wake()
			return
		}
	}
}

// end records that an entry has no addresses any more.
func (l *sharedLease) end(e *entry) {
	l.units.mu.Lock()
	defer l.units.mu.Unlock()
	e.until, e.kept, e.asks, e.since = time.Time{}, false, false, time.Time{}
	e.wake() // another interface than that of the addresses may be usable now
	if l.driver == e {
		l.driver = nil
		l.drive()
	}
}

// covers reports whether an entry may have its addresses now.
func (l *sharedLease) covers(e *entry) bool {
	l.units.mu.Lock()
	defer l.units.mu.Unlock()
	return !e.until.IsZero() && time.Now().Before(l.until)
}

// deadline returns when the lease ends, as last passed to fence and guard.
func (l *sharedLease) deadline() time.Time {
	l.units.mu.Lock()
	defer l.units.mu.Unlock()
	return l.until
}
