package vip

import (
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/guard"
)

// Every address has a lifetime in the kernel, which is renewed while the lease lasts. It removes
// the address when program and guard are killed together. Until then clients on this machine reach
// nobody, so it is as short as the kernel's whole seconds allow. With a fence, other machines do
// not depend on it. Without a fence they do, and the cluster waits for it: see
// kernelPlace.HoldDown.
const (
	shortestLife = time.Second
	longestLife  = 30 * time.Second // for longer leases, and for addresses that are kept
	bareLife     = shortestLife     // without a fence
	bareLate     = 500 * time.Millisecond
)

// lifetimes renews the lifetimes of the addresses of all units at once, so that the process wakes
// up once for all.
type lifetimes struct {
	units  *units
	lease  *sharedLease
	rtnl   *rtnl
	fenced bool

	// renewing is held while lifetimes are renewed: no address that is removed meanwhile is put
	// back.
	renewing sync.Mutex

	// units.mu guards these.
	due  time.Time // when to renew again
	ends time.Time // when the kernel has removed what is not renewed any more
}

// length returns the lifetime of addresses whose lease lasts for left, and after which time it is
// renewed.
func (l *lifetimes) length(left time.Duration) (life, every time.Duration) {
	if !l.fenced {
		return bareLife, 3 * bareLife / 10
	}
	life = min(max(left.Truncate(time.Second), shortestLife), longestLife)
	return life, 3 * life / 10
}

// renew renews the lifetimes of all addresses that are in place under the lease, if that is due.
func (l *lifetimes) renew() error {
	now := time.Now()
	l.units.mu.Lock()
	due, until := !now.Before(l.due), l.lease.until
	l.units.mu.Unlock()
	if !due {
		return nil
	}
	life, every := l.length(until.Sub(now))
	l.renewing.Lock()
	defer l.renewing.Unlock()
	var all []guard.Addr
	l.units.mu.Lock()
	for e := range l.units.all {
		if e.renewed && e.leased() {
			all = append(all, e.placed...)
		}
	}
	l.units.mu.Unlock()
	if !time.Now().Before(until) {
		return errExpired // this process stood still
	}
	failed, err := l.rtnl.put(all, life)
	if err != nil {
		return nil // the next renewal tries again; if the addresses go, Mend reports the reason
	}
	l.units.mu.Lock()
	defer l.units.mu.Unlock()
	if !time.Now().Before(l.lease.until) {
		// It stood still meanwhile, and the guard may have removed them before the renewal.
		return errExpired
	}
	l.due, l.ends = now.Add(every), time.Now().Add(life+bareLate)
	for e := range l.units.all {
		if slices.ContainsFunc(e.placed, func(a guard.Addr) bool { return failed[a] != nil }) {
			e.missing = true // putting it in place again finds the reason
			e.wake()
		}
	}
	return nil
}

// set says whether the lifetimes of an entry are to be renewed. No renewal under the former setting
// is under way when it returns.
func (l *lifetimes) set(e *entry, on bool) {
	l.renewing.Lock()
	defer l.renewing.Unlock()
	l.units.mu.Lock()
	defer l.units.mu.Unlock()
	e.renewed = on
	if ends := time.Now().Add(bareLife + bareLate); on && ends.After(l.ends) {
		l.ends = ends
	}
}

// over returns when the kernel has removed what is not renewed any more.
func (l *lifetimes) over() time.Time {
	l.units.mu.Lock()
	defer l.units.mu.Unlock()
	return l.ends
}
