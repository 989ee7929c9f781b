//go:build !linux

package lease

import "errors"

// raisePriority is for Linux.
func raisePriority() error { return errors.ErrUnsupported }
