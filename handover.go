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

// setLeaving makes this node give up and claim no more roles, and announces that it leaves; or it
// undoes that.
func (n *Node) setLeaving(leaving bool) {
	n.life.Leaving.Store(leaving)
	n.life.Changed.Notify()
	n.roles.Recheck()
	n.leases.AnnounceLeaving()
	if !leaving {
		n.leases.Renewed.Notify()
	}
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

// depart removes this node from the cluster. It tries again until ctx ends. Its error then has the
// reason of the newest attempt that ctx has not cut off.
func (n *Node) depart(ctx context.Context) error {
	var why error
	for {
		changed := n.life.Changed.Wait()
		leader, err := n.replica.Leader(), error(ErrNoLeader)
		if leader == n.self.ID { // a voter may have joined since the node handed over
			attempt, cancel := context.WithTimeout(ctx, n.replica.TransferTimeout())
			if err = n.replica.Transfer(attempt, ""); err == nil {
				err = errors.New("this node still leads")
			}
			cancel()
		} else if leader != "" {
			err = n.members.AskLeave(ctx, leader)
		}
		if err == nil {
			return nil
		}
		if why == nil || ctx.Err() == nil {
			why = err
		}
		select {
		case <-changed:
		case <-time.After(n.timing.Retry()):
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), why)
		}
	}
}
