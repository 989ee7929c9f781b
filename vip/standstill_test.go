package vip

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A node that keeps its addresses without a majority keeps none if it has stood still past the
// deadline, because others may have them.
func TestStandstillKeepsNothing(t *testing.T) {
	for name, late := range map[string]bool{"in time": false, "after a standstill": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				place := newFakePlace()
				var events list[Event]
				o := newRunner(newFakeCluster(), &Config{
					Name: "vip/192.0.2.1", Addr: netip.MustParsePrefix("192.0.2.1/24"), Quorum: Keep,
					Logger: slog.New(slog.DiscardHandler), Notify: events.add,
				}, place).owner
				held, lose := context.WithCancelCause(t.Context())
				const last = time.Second
				time.AfterFunc(last/2, func() {
					if late {
						time.Sleep(last)
					}
					lose(errors.New("the lease is over"))
				})
				err := o.hold(t.Context(), held, fakeTenure{grantedUntil{time.Now().Add(last)}, newFakeCluster()})
				if !errors.Is(err, errExpired) || errors.Is(err, hold.ErrYielded) {
					t.Errorf("the tenure ends with %v", err)
				}
				if kept := o.keeping != nil; kept == late || (place.unbound == 0) == late {
					t.Errorf("it keeps the address: %v; it was taken away %d times; events %v", kept, place.unbound, events.get())
				}
				o.endKeeping()
			})
		})
	}
}
