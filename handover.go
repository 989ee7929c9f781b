package flotilla

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/roles"
)

// This file is about how a node that shuts down hands over. It needs a majority of the voters for
// that. If they leave as well, there is nobody to hand over to. Waiting for them would only make a
// stop of the whole cluster slow. So nodes tell each other when they leave.

// startLeaving makes this node give up and claim no more roles, and announces that it leaves.
func (n *Node) startLeaving() { n.setLeaving(true) }

// stopLeaving undoes startLeaving.
func (n *Node) stopLeaving() {
	n.setLeaving(false)
	n.leases.Renewed.Notify()
}

func (n *Node) setLeaving(leaving bool) {
	n.life.Leaving.Store(leaving)
	n.life.Changed.Notify()
	n.roles.Recheck()
	n.leases.AnnounceLeaving()
}

// handOver gives up the roles and locks of this node, its leadership and its session, in this
// order, so that nobody has to wait for any of them.
func (n *Node) handOver(ctx context.Context) error {
	yielded := n.roles.YieldAll(ctx, (*roles.Tenure).Any)
	if n.replica.Raft.Load() == nil || n.life.Failure() != nil || len(n.replica.Others()) == 0 {
		return yielded
	}
	ctx, cancel := context.WithTimeout(ctx, n.replica.TransferTimeout())
	defer cancel()
	if !n.leases.Valid() {
		// A majority has not answered for one lease. Nobody would learn of the hand-over, and a majority
		// elsewhere, if there is one, has given up this node.
		n.log.Info("nothing is handed over: the node has no lease")
		return yielded
	}
	ctx, stop := n.replica.WhileSomebodyStays(ctx, n.timing.HandOver())
	defer stop()
	moved := n.replica.PassLeadership(ctx)
	term := n.replica.Term()
	number := n.self.Session(n.store.State())
	n.leases.Lose(fmt.Errorf("%w: the node shuts down", ErrLost))
	if yielded != nil {
		// Functions that have not returned have until then. ctx may have ended.
		time.Sleep(time.Until(n.leases.Until()))
	}
	ended := n.members.EndSession(ctx, number, yielded == nil)
	if n.replica.Term() != term { // nodes that do not know that it leaves have elected it meanwhile
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
