package boltlog

import (
	"fmt"
	"runtime/debug"
)

// guard runs a call into bbolt. It turns a panic into an error, also the one for a page of the
// mapped file that cannot be read (SIGBUS).
func guard(f func() error) (panicked bool, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			panicked, err = true, fmt.Errorf("bbolt: %v", p)
		}
	}()
	return false, f()
}
