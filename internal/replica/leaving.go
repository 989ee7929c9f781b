package replica

import (
	"context"
	"errors"
	"time"

	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/hashicorp/raft"
)

// MajorityStays reports whether a majority of the voters stays when this node has gone: those that neither leave nor are known to be dead.
func (n *Replica) MajorityStays() bool {
	return n.hasMajority(func(id string) bool { return id != n.Self.ID && !n.Book.IsLeaving(id) && !n.Port.HungUp(id) })
}

// majorityRuns reports whether the processes of a majority of the voters may still be there, this one among them.
func (n *Replica) majorityRuns() bool {
	return n.hasMajority(func(id string) bool { return id == n.Self.ID || !n.Port.HungUp(id) })
}

func (n *Replica) hasMajority(counts func(id string) bool) bool {
	voters, yes := n.Store.State().Voters, 0
	for _, id := range voters {
		if counts(id) {
			yes++
		}
	}
	return yes > len(voters)/2
}

// WhileSomebodyStays returns a context that ends as well when this node is on its way out and nobody stays to hand over to. What is under way
// then has patience left, for the others may still be there.
func (n *Replica) WhileSomebodyStays(ctx context.Context, patience time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := notify.Beside(ctx, func(ctx context.Context) {
		var since time.Time
		for {
			changed := n.Life.Changed.Wait()
			switch {
			case !n.Life.Leaving.Load() || n.MajorityStays():
				since = time.Time{}
			case since.IsZero():
				since = time.Now()
			}
			if !since.IsZero() && (time.Since(since) >= patience || !n.majorityRuns()) {
				cancel(ErrNobodyStays)
				return
			}
			select {
			case <-changed:
			case <-time.After(n.Timing.Glance()): // a port that refuses pokes nobody
			case <-ctx.Done():
				return
			}
		}
	})
	return ctx, func() {
		cancel(nil)
		stop()
	}
}

// ErrNobodyStays is why something was not handed over.
var ErrNobodyStays = errors.New("no majority of the voters stays")

// PassLeadership hands the leadership over, if this node has it and there is somebody to have it.
func (n *Replica) PassLeadership(ctx context.Context) error {
	for ctx.Err() == nil && n.MajorityStays() && n.Raft.Load().State() == raft.Leader {
		changed := n.Life.Changed.Wait()
		if n.Leading.Load() != nil {
			return n.Transfer(ctx, "")
		}
		select { // just elected
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}
