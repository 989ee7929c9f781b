package vip

import (
	"context"

	"github.com/flotilla-ha/flotilla/internal/deathnotice"
	"github.com/flotilla-ha/flotilla/internal/fence"
	"github.com/flotilla-ha/flotilla/internal/guard"
)

// init takes a process over that was started as a guard, before it becomes the program once more: see the package's documentation. In every other
// process it looks at one variable of the environment and does nothing.
func init() {
	if guard.IsGuard() {
		guard.Main(guard.Hooks{
			RemoveTable: fence.Remove,
			SendNotice:  func(ctx context.Context, notice []byte) error { return deathnotice.Send(ctx, notice, nil) },
		})
	}
}
