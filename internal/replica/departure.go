package replica

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// Departure is for a node that is about to stop: whether others stay to hand over to, and the
// handing over of the leadership. Its methods are safe for concurrent use.
type Departure struct {
	timing    timing.Timing
	group     *Group
	leads     *LeaderState
	elections *Elections
}

// MajorityStays reports whether a majority of the voters stays when this node has gone: voters that
// neither leave nor are known to be dead.
func (d *Departure) MajorityStays() bool {
	g := d.group
	return d.hasMajority(func(id string) bool { return id != g.self.ID && !g.peers.IsLeaving(id) && !g.port.BelievedDead(id) })
}

// majorityRuns reports whether the processes of a majority of the voters may be running, this one
// among them.
func (d *Departure) majorityRuns() bool {
	g := d.group
	return d.hasMajority(func(id string) bool { return id == g.self.ID || !g.port.BelievedDead(id) })
}

func (d *Departure) hasMajority(counts func(id string) bool) bool {
	voters, yes := d.group.store.State().Voters, 0
	for _, id := range voters {
		if counts(id) {
			yes++
		}
	}
	return yes > len(voters)/2
}

// WhileSomebodyStays returns a context that also ends, with the cause ErrNobodyStays, when this
// node is about to stop and no majority stays to hand over to. It ends only after patience, unless
// the other processes are known to be dead. The caller must call the function that is returned.
func (d *Departure) WhileSomebodyStays(ctx context.Context, patience time.Duration) (context.Context, func()) {
	life := d.group.life
	ctx, cancel := context.WithCancelCause(ctx)
	stop := notify.Beside(ctx, func(ctx context.Context) {
		var since time.Time
		_ = notify.Loop(ctx, func() (time.Time, bool) {
			switch {
			case !life.Leaving.Load() || d.MajorityStays():
				since = time.Time{}
			case since.IsZero():
				since = time.Now()
			}
			if !since.IsZero() && (time.Since(since) >= patience || !d.majorityRuns()) {
				cancel(ErrNobodyStays)
				return time.Time{}, true
			}
			return time.Now().Add(d.timing.Glance()), false // a port that refuses notifies nobody
		}, &life.Changed)
	})
	return ctx, func() {
		cancel(nil)
		stop()
	}
}

// PassLeadership hands the leadership over, if this node has it and a majority stays. If the node
// has just been elected, it waits until the leadership can be handed over.
func (d *Departure) PassLeadership(ctx context.Context) error {
	var leads bool
	err := notify.Until(ctx, func() bool {
		if ctx.Err() != nil || !d.MajorityStays() || d.group.Raft.Load().State() != raft.Leader {
			return true
		}
		leads = d.leads.Leading.Load() != nil
		return leads
	}, &d.group.life.Changed)
	if err != nil || !leads {
		return nil
	}
	return d.elections.Transfer(ctx, "")
}
