package guard

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const partedTime = time.Second // for a guard to acknowledge that a share has been closed

// common is the one global of this package. The kernel knows processes: a guard watches the whole
// program, and must send no death notice while an address of any part of it is in the kernel. So a
// program has one guard, whatever number of nodes and addresses it has.
var common shared

// shared is the guard of this program, as its parts share it.
type shared struct {
	mu     sync.Mutex // held while a share opens or closes, so that there is one guard
	guard  *Guard     // nil: there are no shares
	shares map[*Share]Duty
}

// Share is what one part of a program has of the program's guard. The death notices of all shares
// are sent when the program dies, and only when the addresses are gone. The addresses, the table
// and the deadline belong to the one share for Addresses. Its methods may be called from several
// goroutines at once.
type Share struct{ guard *Guard }

// Join gives the caller a share of the guard of this program. The first share starts the guard, and
// the first share for Addresses makes it one that removes addresses. Join returns when the guard is
// ready, or when a first attempt has failed: Await tells. Further attempts follow in the
// background. ctx bounds the first attempt only. At most one share at a time is for Addresses. The
// caller must close the share. The guard writes to the log of the first share.
func Join(ctx context.Context, d Duty, log *slog.Logger) (*Share, error) {
	p := &common
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range p.shares {
		if d == Addresses && other == Addresses {
			return nil, errors.New("another part of this program has given the guard its addresses")
		}
	}
	if p.guard == nil {
		g, err := Start(ctx, d, log)
		if err != nil {
			return nil, err
		}
		p.guard, p.shares = g, make(map[*Share]Duty)
	} else if d == Addresses {
		if err := p.guard.widen(); err != nil {
			return nil, err
		}
		p.guard.Await(ctx) // the caller asks for the result if it needs it
	}
	s := &Share{guard: p.guard}
	p.shares[s] = d
	return s, nil
}

// Await waits until a guard runs and has acknowledged everything. It returns why the last start of
// one has failed, or the cause of the end of ctx.
func (s *Share) Await(ctx context.Context) error { return s.guard.Await(ctx) }

// DeathNotice replaces the death notice of this share. Empty means that it has none. An error that
// wraps ErrDown means that the next guard gets it.
func (s *Share) DeathNotice(ctx context.Context, notice []byte) error {
	return s.guard.DeathNotice(ctx, s, notice)
}

// Watch is that of Guard.
func (s *Share) Watch(ctx context.Context, addrs []Addr) error { return s.guard.Watch(ctx, addrs) }

// Table is that of Guard.
func (s *Share) Table(ctx context.Context, name string) error { return s.guard.Table(ctx, name) }

// Extend is that of Guard.
func (s *Share) Extend(until time.Time) { s.guard.Extend(until) }

// Removals is that of Guard.
func (s *Share) Removals() uint64 { return s.guard.Removals() }

// Close gives the share back. The guard forgets what it has from this share, and touches no
// address. The last Close ends the guard and waits for that. A second Close of a share does
// nothing.
func (s *Share) Close() error {
	p := &common
	p.mu.Lock()
	defer p.mu.Unlock()
	d, open := p.shares[s]
	if !open {
		return nil
	}
	delete(p.shares, s)
	if len(p.shares) == 0 {
		p.guard = nil
		return s.guard.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), partedTime)
	defer cancel()
	// An error means that the next guard does not get it.
	forgotten := []error{s.DeathNotice(ctx, nil)}
	if d == Addresses {
		s.guard.Extend(time.Time{})
		forgotten = append(forgotten, s.guard.Watch(ctx, nil), s.guard.Table(ctx, ""))
	}
	for _, err := range forgotten {
		if err != nil && !errors.Is(err, ErrDown) {
			return err
		}
	}
	return nil
}
