package vip

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A node whose interface has failed hands the address over at once: there are no clients that could be told anything. One that is not ready has them go first.
func TestDrainWhereThereAreClients(t *testing.T) {
	for _, down := range []bool{false, true} {
		t.Run(map[bool]string{false: "not ready", true: "interface down"}[down], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host := NewMemory().Machine("a")
				var unready atomic.Bool
				start := time.Now()
				var took time.Duration
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error)
				go func() {
					done <- Run(ctx, &once{end: make(chan struct{})}, Config{
						Addr: netip.MustParsePrefix("192.0.2.1/24"), Binder: host, DrainTime: 3 * time.Second,
						Ready: func() bool { return !unready.Load() },
						Drain: func(ctx context.Context, _ netip.Addr) error { <-ctx.Done(); return nil },
						Notify: func(e Event) {
							if e.Kind == Moved && took == 0 {
								took = time.Since(start)
							}
						},
					})
				}()
				if synctest.Wait(); down {
					host.SetDown(true)
				} else {
					unready.Store(true)
				}
				time.Sleep(time.Minute)
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if down != (took < time.Second) || took == 0 {
					t.Errorf("the role was given up after %v", took)
				}
			})
		})
	}
}
