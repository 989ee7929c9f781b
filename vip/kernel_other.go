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
func (kernel) Attach(context.Context, Unit) (Place, error) {
	return nil, fmt.Errorf("the kernel's floating addresses need Linux, and this is %s; "+
		"set Config.Binder, for example to a Func or Exec", runtime.GOOS)
}
