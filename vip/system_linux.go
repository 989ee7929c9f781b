package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/l2"
)

// claimGrace is the time after a take-over in which frames of the last owner may still arrive.
const claimGrace = 250 * time.Millisecond

// machine is the one global of this package. The kernel knows processes, and a process has one
// table of nftables, whatever number of Runs it has. Package guard sees to it that there is one
// guard.
var machine process

// process has the system of this process while a place is open.
type process struct {
	mu     sync.Mutex // held while a place opens or closes
	system *system    // nil: no place is open
}

// open adds an entry. The first one starts the system.
func (p *process) open(ctx context.Context, e *entry, noGuard bool, log *slog.Logger) (*system, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.system == nil {
		s, err := newSystem(log)
		if err != nil {
			return nil, err
		}
		p.system = s
	}
	p.system.units.add(e)
	p.system.open++
	if !noGuard {
		p.system.guard.start(ctx, log)
	}
	return p.system, nil
}

// close removes an entry. The last one ends the system.
func (p *process) close(e *entry) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.system
	s.left = s.units.remove(e) || s.left
	if s.open--; s.open > 0 {
		return nil
	}
	p.system = nil
	return s.close()
}

// system is what all places of this process share.
type system struct {
	units     *units
	table     *table
	guard     *guardian
	lease     *sharedLease
	lifetimes *lifetimes
	rtnl      *rtnl
	listeners *claimListeners
	watch     *watch

	stop context.CancelFunc
	runs sync.WaitGroup

	// process.mu guards these.
	open int  // places
	left bool // a closed place could not remove its addresses
}

// newSystem starts what places share.
func newSystem(log *slog.Logger) (*system, error) {
	if err := checkRights(); err != nil {
		return nil, err
	}
	r, err := openRtnl()
	if err != nil {
		return nil, err
	}
	t, err := openTable(log)
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	if !t.fenced() {
		log.Warn(fmt.Sprintf("no fence: if this machine stands still its addresses may be seen for up to %v longer "+
			"than the lease, and the cluster waits for that long before it grants them again; "+
			"planned moves may cut connections",
			bareLife+bareLate), "why", t.unfenced)
	}
	u := newUnits()
	w, err := newWatch(func(n news) {
		if n.gone.Index == 0 {
			t.checkNow()
		}
		u.observe(n)
	}, func() {
		t.checkNow()
		u.suspect()
	})
	if err != nil {
		return nil, errors.Join(err, t.close(false), r.close())
	}
	ctx, stop := context.WithCancel(context.Background())
	g := &guardian{units: u, table: t.removable()}
	lease := &sharedLease{units: u, table: t, guard: g}
	s := &system{
		units: u, table: t, guard: g, lease: lease, rtnl: r, watch: w, stop: stop,
		lifetimes: &lifetimes{units: u, lease: lease, rtnl: r, fenced: t.fenced()},
		listeners: newClaimListeners(u.inPlace, func(on nic, c l2.Claim) { onClaim(u, lease, on, c) }, log),
	}
	s.runs.Go(func() { s.listeners.run(ctx) })
	s.runs.Go(func() { t.maintain(ctx, s.guard.checkRemovals, log) })
	return s, nil
}

// close ends the system.
func (s *system) close() error {
	s.stop()
	s.runs.Wait()
	return errors.Join(s.guard.close(), s.table.close(s.left), s.watch.close(), s.rtnl.close())
}

// bound records that an entry's addresses are in place and have been announced.
func (s *system) bound(e *entry, on nic) {
	s.units.bound(e, on)
	s.listeners.changed()
}

// end records that an entry has no addresses any more.
func (s *system) end(e *entry) {
	s.lease.end(e)
	s.listeners.changed()
}

// onClaim passes on what another machine says about an address.
func onClaim(u *units, lease *sharedLease, on nic, c l2.Claim) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !time.Now().Before(lease.until) {
		return // the lease is over, and the other machine may be the next owner
	}
	for e := range u.all {
		here := !e.since.IsZero() && time.Since(e.since) >= claimGrace
		if e.kept || e.where != on || !here || !slices.Contains(e.addrs, c.Addr) {
			continue
		}
		select {
		case e.claims <- &ConflictError{Addr: c.Addr, MAC: c.MAC, Probe: c.Probe}:
		default: // enough of them wait for Run
		}
	}
}
