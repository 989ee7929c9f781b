package flotilla

import (
	"context"
	"errors"
	"time"

	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/hashicorp/raft"
)

// majorityStays reports whether a majority of the voters stays when this node has gone: those that neither leave nor are known to be dead.
func (n *replica) majorityStays() bool {
	return n.hasMajority(func(id string) bool { return id != n.self.ID && !n.book.IsLeaving(id) && !n.port.HungUp(id) })
}

// majorityRuns reports whether the processes of a majority of the voters may still be there, this one among them.
func (n *replica) majorityRuns() bool {
	return n.hasMajority(func(id string) bool { return id == n.self.ID || !n.port.HungUp(id) })
}

func (n *replica) hasMajority(counts func(id string) bool) bool {
	voters, yes := n.store.State().Voters, 0
	for _, id := range voters {
		if counts(id) {
			yes++
		}
	}
	return yes > len(voters)/2
}

// whileSomebodyStays returns a context that ends as well when this node is on its way out and nobody stays to hand over to. What is under way
// then has patience left, for the others may still be there.
func (n *replica) whileSomebodyStays(ctx context.Context, patience time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := notify.Beside(ctx, func(ctx context.Context) {
		var since time.Time
		for {
			changed := n.life.Changed.Wait()
			switch {
			case !n.life.Leaving.Load() || n.majorityStays():
				since = time.Time{}
			case since.IsZero():
				since = time.Now()
			}
			if !since.IsZero() && (time.Since(since) >= patience || !n.majorityRuns()) {
				cancel(errNobodyStays)
				return
			}
			select {
			case <-changed:
			case <-time.After(n.timing.Glance()): // a port that refuses pokes nobody
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

// errNobodyStays is why something was not handed over.
var errNobodyStays = errors.New("no majority of the voters stays")

// passLeadership hands the leadership over, if this node has it and there is somebody to have it.
func (n *replica) passLeadership(ctx context.Context) error {
	for ctx.Err() == nil && n.majorityStays() && n.raft.Load().State() == raft.Leader {
		changed := n.life.Changed.Wait()
		if n.leading.Load() != nil {
			return n.transfer(ctx, "")
		}
		select { // just elected
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}
