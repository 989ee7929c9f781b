package flotilla_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// Whatever happens to nodes and network, a role has one holder at a time, and each has a higher
// fence than the one before.
func TestRolesUnderFaults(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, run := range chaosRuns(t) {
		t.Run(fmt.Sprintf("%d nodes, seed %d", run.nodes, run.seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newChaos(t, run.seed, run.nodes)
				held := new(holders)
				h.died = func(node int) { held.died(node, h.now()) }
				ctx, stop := context.WithCancel(t.Context())
				roles := []string{"a", "b", "c", "d"}
				for i := range run.nodes {
					for r, role := range roles {
						h.calls.Go(func() {
							random := rand.New(rand.NewPCG(run.seed, uint64(i*len(roles)+r)))
							for ctx.Err() == nil {
								h.hold(ctx, random, held, i, role)
							}
						})
					}
				}
				length := time.Minute
				if flotilla.Long() {
					length = 100 * time.Second
				}
				h.run(length)
				h.c.Settle()
				before := h.now()
				time.Sleep(20 * time.Second) // nobody holds a role for longer, so each changes hands
				stop()
				h.calls.Wait()
				for _, role := range roles {
					if n := held.since(role, before); n == 0 {
						t.Errorf("nobody was given %s in %v after all was well", role, h.now()-before)
					}
					if n := held.since(role, 0); n < 10 {
						t.Errorf("only %d tenures of %s", n, role)
					}
				}
				for _, fault := range held.check() {
					t.Error(fault)
				}
				t.Logf("%d tenures", len(held.all))
			})
		})
	}
}

// hold contends for a role once. The holder works for a while, and sometimes goes on after its
// tenure. That must not matter.
func (h *chaos) hold(ctx context.Context, random *rand.Rand, held *holders, node int, role string) {
	patience, work := time.Duration(random.IntN(20000))*time.Millisecond, time.Duration(1+random.IntN(8000))*time.Millisecond
	stubborn := random.IntN(5) == 0
	time.Sleep(time.Duration(1+random.IntN(1000)) * time.Millisecond)
	n := h.nodes[node].Load()
	if n == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// Its error is nothing to be judged: the role was not given in time, or was lost, or the node is
	// closed.
	n.Hold(ctx, flotilla.Role{Name: role}, func(ctx context.Context, t flotilla.Tenure) error {
		if h.nodes[node].Load() != n {
			return nil // this process is dead, and only its code does not know
		}
		// It may go on when its context is over, until the deadline: nobody else may have the role
		// before.
		defer held.begin(role, node, t.Fence(), func() time.Duration { return min(h.now(), t.Deadline().Sub(h.start)) })()
		stop := context.AfterFunc(ctx, func() {
			if late := time.Since(t.Deadline()); late > 0 && h.nodes[node].Load() == n {
				h.t.Errorf("a tenure of %s by n%d ended %v after its deadline", role, node, late)
			}
		})
		defer stop()
		timer := time.NewTimer(work)
		defer timer.Stop()
		for {
			renewed, deadline := t.Renewed(), t.Deadline()
			select {
			case <-renewed:
				if t.Deadline().Before(deadline) {
					h.t.Errorf("a renewal of %s by n%d set the deadline back from %v to %v", role, node, deadline, t.Deadline())
				}
			case <-timer.C:
				return nil
			case <-ctx.Done():
				if stubborn {
					time.Sleep(3 * h.rec.lease)
				}
				return context.Cause(ctx)
			}
		}
	})
}
