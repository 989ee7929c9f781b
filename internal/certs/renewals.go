package certs

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/notify"
)

// renewalInterval is how often certificates are looked at. certmagic bases its decisions on it.
const renewalInterval = certmagic.DefaultRenewCheckInterval

// renewals has the certificates in memory renewed when they are due. It takes the place of
// certmagic's own loop, which does the same, but does not tell whether it goes on, and ends without
// a word after some panics.
type renewals struct {
	// look looks at every certificate in memory, and has those that are due renewed. It returns when
	// it has looked at all.
	look   func(context.Context) error
	looked *meter.Moment
	every  time.Duration
	log    *slog.Logger

	life  context.Context
	tasks notify.Tasks
}

// start looks for the first time, before there is anything in memory, and then again and again
// until life ends.
func (r *renewals) start() {
	r.once()
	r.tasks.Go(func() {
		tick := time.NewTicker(r.every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				r.once()
			case <-r.life.Done():
				return
			}
		}
	})
}

// once looks once. If certmagic panics, the next look comes all the same, unless the panic has left
// a lock behind.
func (r *renewals) once() {
	began := time.Now()
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("looking for certificates that are due has panicked; will try again",
				"error", fmt.Sprint(p), "in", r.every, "stack", string(debug.Stack()))
		}
	}()
	if err := r.look(r.life); err != nil {
		if r.life.Err() == nil {
			r.log.Warn("certificates that are due cannot be found; will try again", "error", err, "in", r.every)
		}
		return
	}
	if r.life.Err() == nil {
		r.looked.Set(began)
	}
}
