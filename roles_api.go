package flotilla

import (
	"context"

	"github.com/flotilla-ha/flotilla/hold"
)

// Hold waits until this node holds the role, alone in the cluster, calls f, and gives the role up
// when f returns or panics. Whoever is next gets it in the same step. It returns f's error.
//
// The context that f gets ends with ctx, and also
//   - when the node's lease is about to lapse, because a majority of the voters has not been
//     reached. Its cause then wraps ErrLost. f must be done by the tenure's Deadline, which is
//     about a fifth of a lease away; after that another node may hold the role.
//   - when the role is to be handed over: a better contender waits, Move was called, or the node
//     shuts down or, if the role is Public, begins to drain. Its cause then is ErrYielded. f has
//     ten seconds from then on, for as long as the lease lasts, and another node gets the role when
//     f returns.
//
// If f returns nil or its context's error after that, Hold returns the cause. A Storage write with
// f's context takes effect only while the role is held, which is judged where the writes are put in
// order; so a late one of a former holder is refused with ErrLost.
//
// Contenders of one node compete as those of different nodes do. A call that waits costs nothing,
// and leaves when ctx ends. A node that loses its lease while it waits goes to the end of the
// queue. While a node drains it waits in no queue of a Public role, and while an operator has
// drained it, or it is on its way out, in none at all: Hold then waits until that is undone, or the
// node is closed.
func (n *Node) Hold(ctx context.Context, r Role, f func(ctx context.Context, t Tenure) error) error {
	return n.roles.Hold(ctx, r, f)
}

// Move has a role of Hold handed over to the node with that ID or name, which must be waiting for
// it, or, if node is empty, to whoever of the others would get it. It may be called on any node,
// and returns when the other holds the role, or when ctx ends; the role may still move then.
// Whoever has got a role so keeps it although others may be better, until it gives it up.
func (n *Node) Move(ctx context.Context, role, node string) error {
	return n.roles.Move(ctx, role, node)
}

// Holder returns the fence of whoever holds a role of Hold now, as this node knows, and whether
// that is this node; 0 if nobody does who lives, or if this node did and has lost its lease.
func (n *Node) Holder(role string) (fence uint64, own bool) {
	return n.roles.Holder(role)
}

// Remark has Status say something of a role on this node, such as why it cannot serve it; empty:
// nothing any more. It is for those who build on Hold, as package vip does.
func (n *Node) Remark(role, text string) {
	if n.remarks.set(role, text) {
		n.life.Changed.Notify()
	}
}

// Role names something that one node does at a time, and says how much this node wants to be the
// one: see hold.Role.
type Role = hold.Role

// Tenure is one node's time as the holder of a role: see hold.Tenure.
type Tenure = hold.Tenure
