package vip

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A node whose interface has failed hands the address over at once, because it cannot reach any
// client. A node that is not ready drains its clients first.
func TestDrainWhereThereAreClients(t *testing.T) {
	for _, down := range []bool{false, true} {
		t.Run(map[bool]string{false: "not ready", true: "interface down"}[down], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host := NewMemory().Machine("a")
				var unready atomic.Bool
				began := time.Now()
				var took time.Duration
				end := start(t, &once{end: make(chan struct{})}, Config{
					Addr: netip.MustParsePrefix("192.0.2.1/24"), Binder: host, DrainTime: 3 * time.Second,
					Ready: func() bool { return !unready.Load() },
					Drain: func(ctx context.Context, _ netip.Addr) error { <-ctx.Done(); return nil },
					Notify: func(e Event) {
						if e.Kind == Moved && took == 0 {
							took = time.Since(began)
						}
					},
				})
				if synctest.Wait(); down {
					host.SetDown(true)
				} else {
					unready.Store(true)
				}
				time.Sleep(time.Minute)
				end()
				if down != (took < time.Second) || took == 0 {
					t.Errorf("the role was given up after %v", took)
				}
			})
		})
	}
}
