package roles

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/errs"
)

const (
	// DoneTime is the pause of HoldLoop after a function that returned nil.
	DoneTime = time.Second

	// FirstPause is the pause of HoldLoop after the first error.
	FirstPause = time.Second

	// LongestPause is how long the pauses become. They double with each error.
	LongestPause = time.Minute
)

// HoldLoop holds a role again and again until ctx ends, as Node.HoldLoop describes.
func (h *Holder) HoldLoop(ctx context.Context, r hold.Role, f func(context.Context, hold.Tenure) error) error {
	log, works := h.cfg.Log.With("role", r.Name), h.cfg.Life.Works
	for pause := FirstPause; ; {
		a := h.attempt(ctx, r, f)
		failed := !a.ended() && a.err != nil
		switch {
		case ctx.Err() != nil, works.Err() != nil:
			if failed && !a.began.IsZero() {
				log.Warn("the holder of a role has failed at its end", "err", a.err)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return errs.Edge("holding the role "+r.Name, context.Cause(works))
		case a.impossible():
			return a.err
		case a.ended():
			pause = FirstPause
			continue
		}
		wait := DoneTime
		if !failed || a.lasted >= LongestPause {
			pause = FirstPause
		}
		if failed {
			wait, pause = pause, min(2*pause, LongestPause)
			log.Warn("holding a role has failed; it is claimed again after a pause", "err", a.err, "pause", wait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-works.Done():
		}
		timer.Stop()
	}
}

// attempt is one call of Hold by HoldLoop.
type attempt struct {
	err    error         // of Hold
	began  time.Time     // when the function was called; zero: it was not
	lasted time.Duration // how long it took
	cause  error         // why its context had ended when it returned; nil: it had not
	own    error         // what it returned
}

// attempt holds the role once.
func (h *Holder) attempt(ctx context.Context, r hold.Role, f func(context.Context, hold.Tenure) error) (a attempt) {
	a.err = h.Hold(ctx, r, func(held context.Context, t hold.Tenure) error {
		a.began = time.Now()
		a.own = f(held, t)
		a.lasted = time.Since(a.began)
		if held.Err() != nil {
			a.cause = context.Cause(held)
		}
		return a.own
	})
	return a
}

// ended reports whether the tenure was over, and the function says nothing else.
func (a *attempt) ended() bool {
	if !a.began.IsZero() && a.own == nil && (errors.Is(a.err, hold.ErrYielded) || errors.Is(a.err, errs.ErrLost)) {
		return true // it was over right after the function had returned
	}
	return a.cause != nil && (errors.Is(a.err, a.cause) || errors.Is(a.err, errs.ErrLost))
}

// impossible reports whether no later attempt can succeed.
func (a *attempt) impossible() bool {
	return a.began.IsZero() && (errors.Is(a.err, fs.ErrInvalid) || errors.Is(a.err, errWitness))
}
