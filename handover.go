package flotilla

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/roles"
)

// How a node on its way out hands over. It needs a majority of the voters for that. When they leave as well there is nobody to
// hand over to, and waiting for them would only make a stop of the whole cluster slow: so nodes tell each other that they leave.

// startLeaving has this node hold nothing more, and says so to the others.
func (n *Node) startLeaving() { n.setLeaving(true) }

// stopLeaving takes that back.
func (n *Node) stopLeaving() {
	n.setLeaving(false)
	n.keeper.Renewed.Notify()
}

func (n *Node) setLeaving(leaving bool) {
	n.life.Leaving.Store(leaving)
	n.life.Changed.Notify()
	n.roles.Recheck()
	n.keeper.SendLeaving(n.replica.Others())
}

// handOver gives up what this node holds, its leadership and its session, in this order, so that nobody waits for any of them.
func (n *Node) handOver(ctx context.Context) error {
	yielded := n.roles.YieldAll(ctx, (*roles.Tenure).Any)
	if n.replica.Raft.Load() == nil || n.life.Failure() != nil || len(n.replica.Others()) == 0 {
		return yielded
	}
	ctx, cancel := context.WithTimeout(ctx, n.replica.AttemptTimeout())
	defer cancel()
	if !n.keeper.Valid() {
		// A majority has not answered for as long as a lease: nobody would hear of it, and the cluster, if there is one, has given up this node.
		n.log.Info("nothing is handed over: the node has no lease")
		return yielded
	}
	ctx, stop := n.replica.WhileSomebodyStays(ctx, n.timing.HandOver())
	defer stop()
	moved := n.replica.PassLeadership(ctx)
	term := n.replica.Term()
	number := n.self.Session(n.store.State())
	n.keeper.Lose(fmt.Errorf("%w: the node shuts down", ErrLost))
	if yielded != nil {
		time.Sleep(time.Until(n.keeper.Until())) // whoever still holds something has until then; ctx may be over
	}
	ended := n.members.EndSession(ctx, number, yielded == nil)
	if n.replica.Term() != term { // it has been elected meanwhile, by nodes that had not heard
		moved = n.replica.PassLeadership(ctx)
	}
	if errors.Is(context.Cause(ctx), replica.ErrNobodyStays) || !n.replica.MajorityStays() {
		if moved != nil || ended != nil {
			n.log.Info("not all is handed over: no majority of the voters stays", "leadership", moved, "session", ended)
		}
		return yielded
	}
	return errors.Join(moved, yielded, ended)
}
