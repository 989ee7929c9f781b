package vip

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// Func is a Binder that calls functions. It is for addresses that this machine's kernel cannot
// move, such as those that a cloud assigns to an interface. The functions should pass the fence on
// to whatever moves the address, and that should reject a fence lower than the highest it has seen.
// A late call by a former owner then does no harm.
type Func struct {
	// Bind brings the addresses here. It may take long; ctx ends when the role is lost.
	Bind func(ctx context.Context, m Move) error

	// Unbind removes them. It may be nil if the next owner's Bind does that. The lease may be over
	// when it is called. Its context ends after ten seconds.
	Unbind func(ctx context.Context, m Move) error

	// Check returns why Bind would fail now, without changing anything. It may be nil. After Bind
	// has failed, the node claims the addresses as before once Check finds nothing wrong. Without
	// Check it waits until no other node wants them, or until they are moved to it by hand: other
	// nodes must not lose their clients to a node that cannot serve them.
	Check func(ctx context.Context, m Move) error

	// HoldDown is the hold-down time, as in hold.Public, if something goes on here while the program
	// stands still.
	HoldDown time.Duration
}

// Move is what the functions of a Func get.
type Move struct {
	Name  string // of the role
	Addrs []netip.Prefix
	Fence uint64    // see hold.Tenure
	Until time.Time // the role is held at least until then
}

// unbindTime bounds Func.Unbind.
const unbindTime = 10 * time.Second

// Attach implements Binder.
func (f Func) Attach(_ context.Context, u Unit) (Place, error) {
	if f.Bind == nil {
		return nil, errors.New("Func.Bind is nil: set it to a function that brings the address here")
	}
	return &funcPlace{f: f, move: Move{Name: u.Name, Addrs: u.Addrs}}, nil
}

// funcPlace is the Place of a Func.
type funcPlace struct {
	f Func

	mu    sync.Mutex
	move  Move // of the last Bind
	bound bool
}

// HoldDown implements Place.
func (p *funcPlace) HoldDown() time.Duration { return p.f.HoldDown }

// Usable implements Place: it always is.
func (p *funcPlace) Usable() error { return nil }

// Changed implements Place.
func (p *funcPlace) Changed() <-chan struct{} { return nil }

// Bind implements Place.
func (p *funcPlace) Bind(ctx context.Context, g Grant) error {
	p.mu.Lock()
	p.move.Fence, p.move.Until, p.bound = g.Fence, g.Until, true
	move := p.move
	p.mu.Unlock()
	return p.f.Bind(ctx, move)
}

// Check implements Checker.
func (p *funcPlace) Check(ctx context.Context) error {
	if p.f.Check == nil {
		return errors.ErrUnsupported
	}
	p.mu.Lock()
	move := p.move
	p.mu.Unlock()
	return p.f.Check(ctx, move)
}

// Extend implements Place.
func (p *funcPlace) Extend(time.Time) (time.Duration, error) { return time.Hour, nil }

// Announce implements Place.
func (p *funcPlace) Announce() error { return nil }

// Mend implements Place.
func (p *funcPlace) Mend(context.Context) (bool, error) { return false, nil }

// Quiesce implements Place.
func (p *funcPlace) Quiesce(context.Context) error { return nil }

// Release implements Place.
func (p *funcPlace) Release(context.Context) error { return p.Unbind() }

// Unbind implements Place.
func (p *funcPlace) Unbind() error {
	p.mu.Lock()
	bound, move := p.bound, p.move
	p.bound = false
	p.mu.Unlock()
	if !bound || p.f.Unbind == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), unbindTime)
	defer cancel()
	return p.f.Unbind(ctx, move)
}

// Close implements Place.
func (p *funcPlace) Close() error { return p.Unbind() }
