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
	return nil, fmt.Errorf("floating addresses need Linux here, and this is %s; set Config.Binder, to Func or Exec for example", runtime.GOOS)
}
