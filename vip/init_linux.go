package vip

import (
	"context"

	"github.com/flotilla-ha/flotilla/internal/deathnotice"
	"github.com/flotilla-ha/flotilla/internal/fence"
	"github.com/flotilla-ha/flotilla/internal/guard"
)

// init takes over a process that was started as a guard, before main is reached: see the package's
// documentation. In every other process it only looks at one environment variable.
func init() {
	if guard.IsGuard() {
		guard.Main(guard.Hooks{
			RemoveTable: fence.Remove,
			SendNotice:  func(ctx context.Context, notice []byte) error { return deathnotice.Send(ctx, notice, nil) },
			Rehearse:    func(ctx context.Context, notice []byte) { deathnotice.Rehearse(ctx, notice, nil) },
		})
	}
}
