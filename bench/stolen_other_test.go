//go:build unix && !linux

package bench

import (
	"context"
	"errors"
)

// runThief is for Linux.
func runThief(context.Context) error { return errors.ErrUnsupported }

// runObserver is for Linux.
func runObserver(context.Context) error { return errors.ErrUnsupported }
