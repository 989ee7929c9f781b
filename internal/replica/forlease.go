package replica

import (
	"context"
	"time"

	"github.com/flotilla-ha/flotilla/internal/state"
)

// The methods in this file are what the lease manager asks of a replica, besides Leader, Others,
// Stalled and StandFor.

// Send sends datagrams to a node. It does not wait, and they may be lost.
func (r *Replica) Send(node string, datagrams []byte) { r.Port.SendDatagram(node, datagrams) }

// Answered says that a node has just answered a datagram.
func (r *Replica) Answered(node string) { r.Port.DatagramAnswered(node) }

// Call asks a node a question and waits for the answer until ctx ends.
func (r *Replica) Call(ctx context.Context, node, path string, body []byte) ([]byte, error) {
	return r.Port.Call(ctx, node, path, body)
}

// LeaseTerm is a term of this node as leader, as far as leases are concerned.
type LeaseTerm struct {
	n *Replica
	l *Leadership
}

// LeaseTerm returns the present term of this node as leader, nil if it does not lead.
func (r *Replica) LeaseTerm() *LeaseTerm {
	l := r.Leading.Load()
	if l == nil {
		return nil
	}
	return &LeaseTerm{r, l}
}

// Since returns when the term began.
func (t *LeaseTerm) Since() time.Time { return t.l.Since }

// Beat has this leader send heartbeats, if the last ones were sent a lease ago. It does not wait.
func (t *LeaseTerm) Beat() { t.l.Beat() }

// Late reports whether a member keeps writers waiting for too long.
func (t *LeaseTerm) Late(node string, now time.Time) bool { return t.l.Acks.Late(node, now) }

// Expels reports whether a member is being removed although it is present.
func (t *LeaseTerm) Expels(node string) bool { return t.l.Expels(node) }

// Stored returns a committed entry that the node is known to have had on its disk when that process
// ran, 0 if none is known.
func (t *LeaseTerm) Stored(node, incarnation string) uint64 { return t.n.StoredBy(node, incarnation) }

// Propose proposes a change in this term and returns when this node has applied it. After an error
// the outcome is not known.
func (t *LeaseTerm) Propose(change state.Change) error {
	c := state.Command{Node: t.n.Group.self.ID, Time: time.Now().UnixNano(), Change: change}
	last := t.l.Raft.LastIndex()
	return t.l.ApplyAndNotify(t.l.Ctx, &c, func(s *state.State) bool { return s.Index > last })
}
