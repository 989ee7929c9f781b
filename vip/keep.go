package vip

import (
	"context"
	"errors"
	"time"

	"github.com/flotilla-ha/flotilla/hold"
)

const (
	keepFor    = 3 * time.Second       // how far ahead the place is extended
	keepEvery  = time.Second           // how often it is extended
	keepShared = 10 * time.Millisecond // the same for a place that shares a lease, which may end
	lookEvery  = 2 * time.Millisecond  // how often the cluster is asked who has the role
)

// keeping is a time in which addresses stay in place without a lease.
type keeping struct {
	h       Holder
	name    string // of the role
	place   Place
	report  *reporter
	clients *drainer
	fence   uint64    // of the tenure before it
	began   time.Time // when the addresses came here

	cancel  context.CancelFunc
	done    chan struct{}
	removed bool // the addresses are gone; valid when done is closed
}

// start returns k with its time begun. The time ends with a call of end, or when another node is
// known to hold the role.
func (k keeping) start() *keeping {
	ctx, cancel := context.WithCancel(context.Background())
	k.cancel, k.done = cancel, make(chan struct{})
	go func() {
		defer close(k.done)
		why := k.stay(ctx)
		if ctx.Err() == nil {
			k.removed = true
			err := k.place.Unbind()
			k.report.event(Event{Kind: Lost, Held: time.Since(k.began), Err: errors.Join(why, err)})
			k.clients.drain(context.WithoutCancel(ctx), 0)
		}
	}()
	return &k
}

// end ends the time and leaves the addresses where they are. It reports whether they are here. A
// nil keeping has none.
func (k *keeping) end() (here bool) {
	if k == nil {
		return false
	}
	k.cancel()
	<-k.done
	return !k.removed
}

// stay returns why the addresses must go; nil if ctx ends.
func (k *keeping) stay(ctx context.Context) error {
	h, ok := k.h.(interface {
		Holder(role string) hold.Holder
	})
	every, extend := keepEvery, func(until time.Time) error {
		_, err := k.place.Extend(until)
		return err
	}
	if s, ok := k.place.(shared); ok {
		every, extend = keepShared, s.keep
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	moves, _ := k.place.(movable)
	announcements := begun(time.Now())
	for extended := (time.Time{}); ; {
		if ok {
			if now := h.Holder(k.name); now.Fence > k.fence && !now.Own {
				return errors.New("the cluster is back, and another node has the address")
			}
		}
		if time.Since(extended) >= every {
			extended = time.Now()
			if err := extend(extended.Add(keepFor)); err != nil {
				return err
			}
		}
		mended, err := k.place.Mend(ctx)
		if err != nil {
			return err
		}
		if mended {
			k.report.event(Event{Kind: Mended, Fence: k.fence})
		}
		now := time.Now()
		if moves != nil && moves.stale() {
			announcements.again(now)
		}
		if !now.Before(announcements.next()) {
			announcements.announced(now)
			if err := k.place.Announce(); err != nil {
				k.report.event(Event{Kind: Failed, Fence: k.fence, Err: err})
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
