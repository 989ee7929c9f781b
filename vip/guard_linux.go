package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/guard"
)

const (
	guardTime = 3 * time.Second // for a guard to start
	ackTime   = time.Second     // for a guard to acknowledge something
)

// guardian gives the guard process what it needs to know. There may be no guard: because no unit
// wants one yet, or because none could be started.
type guardian struct {
	units *units
	table string // that the guard removes; empty: none

	// units.mu guards these.
	guard   *guard.Share // nil: there is none
	changes uint64       // how often the addresses that may be in the kernel have changed
	notice  string       // the death notice
	until   time.Time    // the deadline

	// sending is held while the guard gets the list of what may be in the kernel, so that the last
	// list it gets is the newest.
	sending sync.Mutex
	known   uint64 // the changes that the guard knows
}

// start starts the guard if there is none. Without a guard, the end of the lease is what ends a
// dead program's addresses.
func (g *guardian) start(ctx context.Context, log *slog.Logger) {
	g.units.mu.Lock()
	there := g.guard != nil
	g.units.mu.Unlock()
	if there {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, guardTime)
	defer cancel()
	process, err := guard.Join(ctx, guard.Addresses, log)
	if err != nil {
		log.Error("no guard: if this program dies, its addresses move when the lease ends, and not at once", "err", err)
		return
	}
	g.units.mu.Lock()
	g.guard = process
	g.changes++ // it does not know the addresses of units without a guard
	if !g.until.IsZero() {
		process.Extend(g.until)
	}
	notice := g.notice
	g.units.mu.Unlock()
	// The addresses come first: the guard removes the table only after the addresses that it keeps
	// silent, and sends the death notice only when the addresses that it knows are gone. Package
	// guard passes everything on to a guard that starts later.
	err = g.send(log)
	if err == nil {
		if err = process.Table(ctx, g.table); (err == nil || errors.Is(err, guard.ErrDown)) && notice != "" {
			err = process.DeathNotice(ctx, []byte(notice))
		}
	}
	if err != nil && !errors.Is(err, guard.ErrDown) {
		log.Warn("the guard does not answer", "err", err)
	}
}

// send sends the guard the list of addresses that are, or are about to be, in the kernel. An error
// means that neither this guard nor its successors will know the list.
func (g *guardian) send(log *slog.Logger) error {
	g.units.mu.Lock()
	changes := g.changes
	g.units.mu.Unlock()
	g.sending.Lock()
	defer g.sending.Unlock()
	if g.known >= changes {
		return nil // another call has sent it
	}
	g.units.mu.Lock()
	process := g.guard
	changes = g.changes
	all := make(map[guard.Addr]struct{})
	for e := range g.units.all {
		for _, a := range e.placed {
			all[a] = struct{}{}
		}
	}
	g.units.mu.Unlock()
	if process == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), ackTime)
	defer cancel()
	err := process.Watch(ctx, slices.Collect(maps.Keys(all)))
	if err != nil && !errors.Is(err, guard.ErrDown) && ctx.Err() == nil {
		return fmt.Errorf("the guard does not take the addresses: %w", err)
	}
	g.known = changes
	if err != nil {
		log.Warn("the guard does not answer; its successor gets the addresses", "err", err)
	}
	return nil
}

// place records what is about to be in the kernel for an entry. The guard knows it when place
// returns.
func (g *guardian) place(e *entry, addrs []guard.Addr, log *slog.Logger) error {
	mu := &g.units.mu
	mu.Lock()
	before, changed := e.placed, !slices.Equal(e.placed, addrs)
	e.placed = addrs
	if changed {
		g.changes++
	}
	mu.Unlock()
	if changed {
		if err := g.send(log); err != nil && len(addrs) > 0 {
			mu.Lock()
			e.placed = before
			mu.Unlock()
			return err
		}
	}
	mu.Lock()
	defer mu.Unlock()
	e.missing = false // earlier removals do not concern what is placed now
	if g.guard != nil {
		e.removals = g.guard.Removals()
	}
	return nil
}

// exists reports whether there is a guard that knows, or will know, all addresses.
func (g *guardian) exists() bool {
	g.units.mu.Lock()
	defer g.units.mu.Unlock()
	return g.guard != nil
}

// deathNotice gives the guard the death notice.
func (g *guardian) deathNotice(notice []byte, log *slog.Logger) {
	g.units.mu.Lock()
	process, same := g.guard, g.notice == string(notice)
	g.notice = string(notice)
	g.units.mu.Unlock()
	if process == nil || same {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), ackTime)
	defer cancel()
	if err := process.DeathNotice(ctx, notice); err != nil {
		log.Warn("the guard has no death notice; its successor gets it", "err", err)
	}
}

// extend moves the guard's deadline. units.mu is held.
func (g *guardian) extend(until time.Time) {
	g.until = until
	if g.guard != nil {
		g.guard.Extend(until)
	}
}

// checkRemovals makes units repair what the guard has removed while this process stood still.
func (g *guardian) checkRemovals() {
	g.units.mu.Lock()
	process := g.guard
	g.units.mu.Unlock()
	if process == nil {
		return
	}
	n := process.Removals()
	g.units.mu.Lock()
	defer g.units.mu.Unlock()
	for e := range g.units.all {
		if e.removals != n {
			e.removals, e.missing = n, true
			e.wake()
		}
	}
}

// close ends the guard.
func (g *guardian) close() error {
	g.units.mu.Lock()
	process := g.guard
	g.units.mu.Unlock()
	if process == nil {
		return nil
	}
	return process.Close()
}
