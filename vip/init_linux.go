package vip

import (
	"context"
	"errors"

	"github.com/flotilla-ha/flotilla/internal/deathnotice"
	"github.com/flotilla-ha/flotilla/internal/fence"
	"github.com/flotilla-ha/flotilla/internal/guard"
	"github.com/flotilla-ha/flotilla/internal/guard/remover"
)

// init takes over a process that was started as a guard of addresses, before main is reached: see
// the package's documentation. In every other process it only looks at one environment variable.
func init() {
	if !guard.IsGuard(guard.Addresses) {
		return
	}
	var r *remover.Remover
	guard.Main(guard.Hooks{
		Prepare: func() (err error) {
			r, err = remover.Open()
			return err
		},
		Remove: func(addrs []guard.Addr) error {
			var errs []error
			for _, a := range addrs {
				errs = append(errs, r.Remove(a.Index, a.Prefix))
			}
			return errors.Join(errs...)
		},
		RemoveTable: fence.Remove,
		SendNotice:  func(ctx context.Context, notice []byte) error { return deathnotice.Send(ctx, notice, nil) },
		Rehearse:    func(ctx context.Context, notice []byte) { deathnotice.Rehearse(ctx, notice, nil) },
	})
}
