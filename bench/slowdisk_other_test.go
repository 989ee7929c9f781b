//go:build unix && !linux

package bench

import (
	"context"
	"errors"
)

// runSlowDisk is for Linux.
func runSlowDisk(context.Context) error { return errors.ErrUnsupported }
