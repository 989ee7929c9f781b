package vip

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/internal/fence"
	"github.com/flotilla-ha/flotilla/internal/guard"
)

const (
	checkEvery = 2 * time.Second // the fence is looked at
	guardTime  = 3 * time.Second // for a guard to start
	ackTime    = time.Second     // for a guard to hear something

)

// machine is what the kernel's binder shares in this process: it has one guard, and one table of nftables.
var machine system

// system keeps the guard and the fence of a program while any of its places is open.
type system struct {
	opening sync.Mutex // held while the first place opens, or the last one closes

	mu     sync.Mutex
	places map[*kernelPlace]struct{}
	fence  *fence.Fence // nil: the kernel cannot
	table  string
	lock   net.Listener // says that the table has an owner
	guard  *guard.Guard // nil: nobody wants one, or none could be started
	watch  *watch
	rtnl   *rtnl
	will   string
	told   time.Time     // the lease that fence and guard know
	driver *kernelPlace  // tells of each renewal; nil: nobody yet
	ears   *ears         // hear of others that claim addresses
	left   bool          // a place that is closed could not take its addresses away
	placed uint64        // how often what is in the kernel has changed
	look   chan struct{} // an element has the fence looked at now
	stop   context.CancelFunc
	runs   sync.WaitGroup

	renewed time.Time // when lifetimes are to be renewed again
	ends    time.Time // when the kernel has removed by itself what is not renewed

	renewing sync.Mutex // held while lifetimes are renewed: nothing that is taken away meanwhile is put back

	telling sync.Mutex // held while the guard is told what is in the kernel: the last it hears must be the newest
	heard   uint64     // of placed, what it knows; guarded by telling
}

// open takes a place in, and makes ready what is shared.
func (s *system) open(ctx context.Context, p *kernelPlace) error {
	s.opening.Lock()
	defer s.opening.Unlock()
	s.mu.Lock()
	first := len(s.places) == 0
	s.mu.Unlock()
	if first {
		if err := s.begin(p.unit.Log); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.places[p] = struct{}{}
	needed := s.guard == nil && !p.unit.NoGuard
	s.mu.Unlock()
	if needed {
		s.startGuard(ctx, p.unit.Log)
	}
	return nil
}

// begin makes ready for the first place.
func (s *system) begin(log *slog.Logger) error {
	if err := checkRights(); err != nil {
		return err
	}
	r, err := openRtnl()
	if err != nil {
		return err
	}
	w, err := newWatch(s.woken, s.deaf)
	if err != nil {
		return errors.Join(err, r.close())
	}
	var id [6]byte
	rand.Read(id[:])
	name := hex.EncodeToString(id[:])
	lock, err := net.Listen("unix", lockName(name))
	if err != nil {
		return errors.Join(fmt.Errorf("the table's lock: %w", err), w.close(), r.close())
	}
	sweep(log)
	f, err := fence.Open(name)
	if err != nil {
		log.Warn(fmt.Sprintf("no fence: if this machine stands still its addresses may be seen for up to %v longer than the lease, and the cluster waits for that long before it grants them anew; planned moves may cut connections", bareLife+bareLate), "why", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look = make(chan struct{}, 1)
	s.watch, s.rtnl, s.fence, s.table, s.lock, s.stop, s.told, s.will = w, r, f, name, lock, stop, time.Time{}, ""
	s.left, s.renewed, s.ends = false, time.Time{}, time.Time{}
	s.ears = newEars(s.inPlace, s.claimed, log)
	ears := s.ears
	s.runs.Go(func() { ears.run(ctx) })
	s.places = make(map[*kernelPlace]struct{})
	if f != nil {
		s.runs.Go(func() { s.keepFence(ctx, f, s.look, log) })
	}
	return nil
}

// lockName is the abstract socket, of this network namespace as the table is, that the owner of a table listens on.
func lockName(table string) string { return "@flotilla-vip/" + table }

// sweep takes away what programs have left that died along with their guards: their addresses first, since only their tables keep these silent.
func sweep(log *slog.Logger) {
	names, err := fence.Names()
	if err != nil {
		return // Open says what is wrong
	}
	for _, name := range names {
		if owned(name) {
			continue
		}
		f, err := fence.Open(name)
		if err == nil {
			err = removeLeft(f.Guarded(), log)
			if err == nil { // else the table has to keep them silent
				err = f.Close()
			}
		}
		if err != nil {
			log.Warn("what a dead program has left of its floating addresses could not be taken away", "table", name, "err", err)
		}
	}
}

// owned reports whether the program of a table lives, or cannot be told to be dead.
func owned(table string) bool {
	c, err := net.Dial("unix", lockName(table))
	if err == nil {
		c.Close()
	}
	return !errors.Is(err, syscall.ECONNREFUSED)
}

// startGuard starts the guard. Without one, the lease's end is what ends a dead program's addresses.
func (s *system) startGuard(ctx context.Context, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, guardTime)
	defer cancel()
	g, err := guard.Start(ctx, log)
	if err != nil {
		log.Error("no guard: if this program dies, its addresses move when the lease ends, and not at once", "err", err)
		return
	}
	s.mu.Lock()
	s.guard = g
	s.placed++ // places of before are news to it
	if !s.told.IsZero() {
		g.Extend(s.told)
	}
	table, will := "", s.will
	if s.fence != nil {
		table = s.table
	}
	s.mu.Unlock()
	// In this order: it removes the table only after the addresses that the table keeps silent, and says that all are gone only if it knows them. One that is
	// not there yet is told by the package guard.
	err = s.guardAddrs(log)
	if err == nil {
		if err = g.Table(ctx, table); (err == nil || errors.Is(err, guard.ErrDown)) && will != "" {
			err = g.DeathNotice(ctx, []byte(will))
		}
	}
	if err != nil && !errors.Is(err, guard.ErrDown) {
		log.Warn("the guard does not answer", "err", err)
	}
}

// close lets a place go.
func (s *system) close(p *kernelPlace) error {
	s.opening.Lock()
	defer s.opening.Unlock()
	s.mu.Lock()
	delete(s.places, p)
	s.left = s.left || len(p.placed) > 0
	last := len(s.places) == 0
	s.mu.Unlock()
	if !last {
		return nil
	}
	s.stop()
	s.runs.Wait()
	var errs []error
	if s.guard != nil {
		errs = append(errs, s.guard.Close())
	}
	if s.fence != nil && !s.left { // else the table keeps them silent, and the next program sweeps it up
		errs = append(errs, s.fence.Close())
	}
	errs = append(errs, s.lock.Close(), s.watch.close(), s.rtnl.close())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.guard, s.fence, s.lock, s.watch, s.rtnl = nil, nil, nil, nil, nil
	return errors.Join(errs...)
}

// guardAddrs tells the guard what is, or is about to be, in the kernel. An error says that it, and those that follow it, will not know.
func (s *system) guardAddrs(log *slog.Logger) error {
	s.mu.Lock()
	news := s.placed
	s.mu.Unlock()
	s.telling.Lock()
	defer s.telling.Unlock()
	if s.heard >= news {
		return nil // along with what others have placed
	}
	s.mu.Lock()
	g := s.guard
	news = s.placed
	all := make(map[guard.Addr]struct{})
	for p := range s.places {
		for _, a := range p.placed {
			all[a] = struct{}{}
		}
	}
	s.mu.Unlock()
	if g == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), ackTime)
	defer cancel()
	err := g.Watch(ctx, slices.Collect(maps.Keys(all)))
	if err != nil && !errors.Is(err, guard.ErrDown) && ctx.Err() == nil {
		return fmt.Errorf("the guard does not take the addresses: %w", err)
	}
	s.heard = news
	if err != nil {
		log.Warn("the guard does not answer; the next one is told", "err", err)
	}
	return nil
}

// place notes what is about to be in the kernel for p, and tells the guard before it is.
func (s *system) place(p *kernelPlace, addrs []guard.Addr) error {
	s.mu.Lock()
	before, changed := p.placed, !slices.Equal(p.placed, addrs)
	p.placed = addrs
	if changed {
		s.placed++
	}
	s.mu.Unlock()
	if changed {
		if err := s.guardAddrs(p.unit.Log); err != nil && len(addrs) > 0 {
			s.mu.Lock()
			p.placed = before
			s.mu.Unlock()
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.missing = false // what has been removed so far has nothing to do with what comes
	if s.guard != nil {
		p.removals = s.guard.Removals()
	}
	return nil
}

// bequeath gives the guard the will.
func (s *system) bequeath(will []byte, log *slog.Logger) {
	s.mu.Lock()
	g, same := s.guard, s.will == string(will)
	s.will = string(will)
	s.mu.Unlock()
	if g == nil || same {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), ackTime)
	defer cancel()
	if err := g.DeathNotice(ctx, will); err != nil {
		log.Warn("the guard has no will; the next one is told", "err", err)
	}
}

// extend tells fence and guard that p has its addresses until then. The lease is the program's, so what all places say comes to one time, and that is
// not worth a word for less than a part of it.
func (s *system) extend(p *kernelPlace, until time.Time, kept bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.until, p.kept = until, kept
	if kept {
		p.stays = false
		if s.driver == p {
			s.driver = nil
			s.drive()
		}
	}
	// What is kept without a lease has no part in the lease of the others, and goes by it while there is one.
	leased := func(p *kernelPlace) bool { return !p.until.IsZero() && !p.kept }
	for other := range s.places {
		switch {
		case leased(other) == leased(p):
			if other.until.After(until) {
				until = other.until
			}
		case leased(other):
			return nil
		}
	}
	left := time.Until(until)
	if more := until.Sub(s.told); left <= 0 || more >= 0 && more < left/4 {
		return nil
	}
	if s.guard != nil {
		s.guard.Extend(until)
	}
	if s.fence != nil {
		if err := s.restored(func() error { return s.fence.Extend(until) }); err != nil {
			return err
		}
	}
	s.told = until
	return nil
}

// drives reports whether p is the one of those with addresses that is asked to tell of each renewal: the lease is that of all.
func (s *system) drives(p *kernelPlace) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.stays = true
	if s.driver == nil {
		s.driver = p
	}
	return s.driver == p
}

// drive finds a new driver: a place whose Run hears of renewals, and is not still putting its addresses in place, which may take longer than a lease. mu is held.
func (s *system) drive() {
	for p := range s.places {
		if !p.until.IsZero() && p.stays && !p.kept {
			s.driver = p
			p.wake()
			return
		}
	}
}

// live says whether the lifetimes of p are to be renewed. When it has returned, they are, or are not.
func (s *system) live(p *kernelPlace, on bool) {
	s.renewing.Lock()
	defer s.renewing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	p.lives = on
	if ends := time.Now().Add(bareLife + bareLate); on && ends.After(s.ends) {
		s.ends = ends
	}
}

// gone returns when the kernel has removed by itself what is not renewed.
func (s *system) gone() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ends
}

// lapse says that p has no addresses.
func (s *system) lapse(p *kernelPlace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.until, p.kept, p.stays, p.since = time.Time{}, false, false, time.Time{}
	if s.ears != nil {
		s.ears.changed()
	}
	p.wake() // an interface that was not the one the addresses are on may do now
	if s.driver == p {
		s.driver = nil
		s.drive()
	}
}

// set says what passes for addresses.
func (s *system) set(state fence.State, limit time.Duration, addrs []netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fence == nil {
		return nil
	}
	return s.restored(func() error { return s.fence.Set(state, limit, addrs...) })
}

// restored does something to the fence, and once more if somebody has flushed it.
func (s *system) restored(f func() error) error {
	err := f()
	if errors.Is(err, fence.ErrTampered) {
		if err = s.fence.Restore(); err == nil {
			err = f()
		}
	}
	return err
}

// fenced returns the fence, nil if the kernel has none.
func (s *system) fenced() *fence.Fence {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fence
}

// keepFence mends the fence when somebody else has flushed it, or an interface has another name, and has addresses mended that the guard took away while this process stood still.
func (s *system) keepFence(ctx context.Context, f *fence.Fence, look <-chan struct{}, log *slog.Logger) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	said := "" // an interface that is missing stays so for long
	for {
		select {
		case <-tick.C:
		case <-look:
		case <-ctx.Done():
			return
		}
		err := f.Check()
		if errors.Is(err, fence.ErrTampered) {
			if what := err.Error(); what != said {
				said = what
				log.Warn("the fence of the floating addresses, or an interface, is not as it was; it is made anew", "what", err)
			}
			err = f.Restore()
		} else if err == nil {
			said = ""
		}
		if err != nil && ctx.Err() == nil {
			log.Error("the fence of the floating addresses cannot be kept; if this machine stands still now, they may be seen after the lease", "err", err)
		}
		s.missed()
	}
}

// missed has places mend what the guard has taken away.
func (s *system) missed() {
	s.mu.Lock()
	g := s.guard
	s.mu.Unlock()
	if g == nil {
		return
	}
	n := g.Removals()
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.places {
		if p.removals != n {
			p.removals, p.missing = n, true
			p.wake()
		}
	}
}

// woken has places look again, after interfaces or addresses changed.
func (s *system) woken(n news) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.gone.Index == 0 {
		select {
		case s.look <- struct{}{}:
		default:
		}
	}
	for p := range s.places {
		switch {
		case slices.Contains(p.placed, n.gone):
			p.unsure = true // that may be long ago: this process may have stood still
		case n.gone.Prefix.IsSingleIP():
			continue // a subnet's address may have been what an interface was found by
		case slices.ContainsFunc(p.placed, func(a guard.Addr) bool { return slices.Contains(n.moved, a.Index) }):
			p.moved = true
		}
		p.wake()
	}
}

// deaf has all places look after something went unheard.
func (s *system) deaf() {
	s.mu.Lock()
	for p := range s.places {
		p.unsure, p.moved = true, true
	}
	s.mu.Unlock()
	s.woken(news{})
}
