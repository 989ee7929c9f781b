//go:build !linux

package vip

import (
	"context"
	"fmt"
	"runtime"
)

// kernel is the Binder of this machine's kernel.
type kernel struct{}

// Attach implements Binder.
func (k kernel) Attach(_ context.Context, u Unit) (Place, error) { return nil, k.check(u) }

// check returns why the addresses of a unit cannot be put in place.
func (kernel) check(Unit) error {
	return fmt.Errorf("the kernel's floating addresses need Linux, and this is %s; "+
		"set Config.Binder, for example to a Func or Exec", runtime.GOOS)
}
