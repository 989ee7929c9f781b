package reporter

import (
	"context"

	"github.com/flotilla-ha/flotilla/internal/deathnotice"
	"github.com/flotilla-ha/flotilla/internal/guard"
)

// init takes over a process that was started as a guard: see the package's documentation.
func init() {
	if guard.IsGuard(guard.Notices) {
		guard.Main(guard.Hooks{
			SendNotice: func(ctx context.Context, notice []byte) error { return deathnotice.Send(ctx, notice, nil) },
			Rehearse:   func(ctx context.Context, notice []byte) { deathnotice.Rehearse(ctx, notice, nil) },
		})
	}
}
