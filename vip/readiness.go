package vip

import (
	"context"
	"errors"
	"time"
)

// readyEvery is how often Config.Ready is called.
const readyEvery = 100 * time.Millisecond

// readiness says whether this node should have the addresses.
type readiness struct {
	place Place
	ready func() bool // Config.Ready; may be nil
}

// unfit returns why this node should not have the addresses now; nil if it may.
func (r readiness) unfit() error {
	if err := r.place.Usable(); err != nil {
		return err
	}
	return r.unready()
}

// unready returns an error unless the program is ready.
func (r readiness) unready() error {
	if r.ready != nil && !r.ready() {
		return errors.New("the program is not ready")
	}
	return nil
}

// await waits until the node is fit, or is not. It returns false if ctx ends first.
func (r readiness) await(ctx context.Context, fit bool) bool {
	var tick <-chan time.Time
	if r.ready != nil {
		ticker := time.NewTicker(readyEvery)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		changed := r.place.Changed()
		usable := r.place.Usable() == nil
		for looked := false; !looked; {
			if (usable && r.unready() == nil) == fit {
				return true
			}
			select {
			case <-changed:
				looked = true
			case <-tick:
			case <-ctx.Done():
				return false
			}
		}
	}
}
