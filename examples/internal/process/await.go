package process

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Await calls f every 20 ms until it succeeds, for at most limit. Then its error contains the last
// error of f that was not about the time. A [PermanentError] of f ends the wait at once.
func Await(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("the first attempt has not ended")
	for {
		err := f(ctx)
		var permanent *PermanentError
		if err == nil || errors.As(err, &permanent) {
			return err
		}
		select {
		case <-tick.C:
			last = err
		case <-ctx.Done():
			return fmt.Errorf("within %s: %w: %w", limit, ctx.Err(), last)
		}
	}
}

// PermanentError is an error that waiting does not cure.
type PermanentError struct {
	// Err is the error.
	Err error
}

// Error returns the text of the error.
func (e *PermanentError) Error() string { return e.Err.Error() }

// Unwrap returns the error.
func (e *PermanentError) Unwrap() error { return e.Err }
