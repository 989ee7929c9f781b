package flotilla

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/frontend"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// keepTickets makes and rotates the keys while this node leads.
func (n *Node) keepTickets(l *replica.Leadership) {
	for l.Ctx.Err() == nil {
		changed, wait := n.tickets.Changed.Wait(), min(time.Minute, n.tickets.Period/4)
		k := n.store.State().Tickets
		if k == nil || k.Current == nil || n.tickets.Due(k, n.clocks.Check(clocks.MaxOffset) != nil) {
			err := n.nextTickets(l, k)
			if err == nil {
				continue
			}
			if l.Ctx.Err() == nil {
				n.log.Warn("the keys of session tickets were not rotated; will try again", "err", err)
			}
			wait = time.Second
		}
		select {
		case <-changed:
		case <-time.After(wait):
		case <-l.Ctx.Done():
		}
	}
}

// nextTickets rotates the keys once every session has them.
func (n *Node) nextTickets(l *replica.Leadership, k *state.TicketKeys) error {
	if k != nil {
		if err := l.AwaitApplied(l.Ctx, k.Index); err != nil {
			return err
		}
	}
	a, err := n.replica.Writes.Do(l.Ctx, state.Command{Change: state.RotateTickets{Key: frontend.NewTicketKey(), Follows: k.MadeAt()}})
	if err == nil && a.Code != state.CodeChanged {
		err = a.Code.Err()
	}
	return err
}

// DropTickets makes every session ticket that the cluster has given out worthless, at once: for when somebody may know the keys of tickets, or
// clients must not go on with what they have seen before. Each client makes one full handshake. A node that is cut off cannot hear of it, so no node
// opens tickets without a lease; those that it gives out meanwhile may be worthless. The cluster does it by itself when a
// certificate's key is marked as compromised, as certmagic does when the authority has revoked the certificate for that reason, and again when there
// is another key, for until then clients have seen the old certificate. It needs a leader.
func (n *Node) DropTickets(ctx context.Context) error {
	_, err := n.replica.Writes.Do(ctx, state.Command{Change: state.DropTickets{Key: frontend.NewTicketKey()}})
	return errs.Edge("dropping session tickets", err)
}

// TicketStatus tells about the keys of session tickets that the cluster shares.
type TicketStatus struct {
	Key        string    // names the current key, and is not part of it; empty: there is none yet, and no other node opens this one's tickets
	Since      time.Time // when it became current, by the clock of the node that led then
	AgeSeconds int64     // since then, by this node's clock
	Previous   int       // older keys whose tickets are still accepted
}

func ticketStatus(k *state.TicketKeys) TicketStatus {
	if k == nil {
		return TicketStatus{}
	}
	sum := sha256.Sum256(k.Current)
	since := time.Unix(0, k.Time)
	return TicketStatus{Key: hex.EncodeToString(sum[:4]), Since: since, AgeSeconds: max(0, int64(time.Since(since).Seconds())), Previous: len(k.Previous)}
}

// lead does what falls to a leader beyond raft, until its term is over.
func (n *Node) lead(l *replica.Leadership) {
	var tickets sync.WaitGroup
	defer tickets.Wait()
	tickets.Go(func() { n.keepTickets(l) })
	n.members.Lead(l)
}
