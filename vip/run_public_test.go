package vip

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// guardedPlace is a place with a guard and a hold-down time.
type guardedPlace struct{ *fakePlace }

func (p guardedPlace) Attach(context.Context, Unit) (Place, error) { return p, nil }
func (p guardedPlace) HoldDown() time.Duration                     { return 2 * time.Second }
func (p guardedPlace) Guarded() bool                               { return true }

// A PublicHolder learns what the role leaves behind. Any other Holder grants the role all the same.
func TestPublicRole(t *testing.T) {
	for name, test := range map[string]struct {
		guarded bool
		quorum  Quorum
		want    hold.Public
	}{
		"plain":         {false, Release, hold.Public{}},
		"guarded":       {true, Release, hold.Public{HoldDown: 2 * time.Second, ReleasedOnDeath: true}},
		"kept, guarded": {true, Keep, hold.Public{HoldDown: 2 * time.Second, ReleasedOnDeath: true, Keep: true}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newFakeCluster()
				var binder Binder = newFakePlace()
				if test.guarded {
					binder = guardedPlace{newFakePlace()}
				}
				end := start(t, c, Config{Addr: netip.MustParsePrefix("192.0.2.1/24"), Binder: binder, Quorum: test.quorum})
				synctest.Wait()
				end()
				if d := cmp.Diff([]hold.Public{test.want}, c.public); d != "" {
					t.Error(d)
				}
			})
		})
	}
	t.Run("another holder", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newFakeCluster()
			end := start(t, struct{ Holder }{c}, Config{Addr: netip.MustParsePrefix("192.0.2.1/24"), Binder: guardedPlace{newFakePlace()}})
			synctest.Wait()
			end()
			if len(c.asks()) != 1 || len(c.public) != 0 {
				t.Errorf("%d requests, %d of them for a public role; want one plain request", len(c.asks()), len(c.public))
			}
		})
	})
}
