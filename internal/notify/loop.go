package notify

import (
	"context"
	"fmt"
	"time"
)

// Until returns nil as soon as ok returns true. It calls ok at once, and again after each Notify of
// one of the signals. When ctx ends first, it returns the cause.
func Until(ctx context.Context, ok func() bool, signals ...*Signal) error {
	return Loop(ctx, func() (time.Time, bool) { return time.Time{}, ok() }, signals...)
}

// Retry returns nil as soon as f succeeds. It calls f at once, and after a failure again at the
// next Notify of one of the signals, or when the pause is over. A pause of zero never ends. When
// ctx ends first, the error wraps the cause and the last error of f.
func Retry(ctx context.Context, pause time.Duration, f func() error, signals ...*Signal) error {
	var last error
	err := Loop(ctx, func() (next time.Time, done bool) {
		if last = f(); last != nil && pause > 0 {
			next = time.Now().Add(pause)
		}
		return next, last == nil
	}, signals...)
	if err != nil {
		return fmt.Errorf("%w; the last attempt failed: %w", err, last)
	}
	return nil
}

// Loop calls step until step reports that it is done, and then returns nil. It calls step at once,
// and again after each Notify of one of the signals. It also calls step at the time next that step
// has returned, unless that is zero. When ctx ends first, Loop returns the cause.
func Loop(ctx context.Context, step func() (next time.Time, done bool), signals ...*Signal) error {
	woken := make(chan struct{}, 1)
	for _, s := range signals {
		s.subscribe(woken)
		defer s.unsubscribe(woken)
	}
	for {
		next, done := step()
		if done {
			return nil
		}
		var due <-chan time.Time
		if !next.IsZero() {
			due = time.After(time.Until(next))
		}
		select {
		case <-woken:
		case <-due:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
