package flotilla

import (
	"context"

	"github.com/flotilla-ha/flotilla/hold"
)

// Hold waits until this node holds the role, alone in the cluster. Then it calls f, and gives the
// role up when f returns or panics. The next contender gets it in the same step. Hold returns f's
// error.
//
// The context that f gets ends with ctx, and also in two cases:
//   - The node's lease is about to expire, because a majority of the voters has not been reached.
//     The cause then wraps ErrLost. f must have returned by the tenure's Deadline, which is about a
//     fifth of a lease away. After that another node may hold the role.
//   - The role is to be handed over: a better contender waits, Move was called, the node shuts
//     down, or the role is Public and the node begins to drain. The cause is then ErrYielded. f has
//     ten seconds from then on, if the lease lasts so long. Another node gets the role when f
//     returns.
//
// If f returns nil or its context's error after that, Hold returns the cause. A Storage write with
// f's context takes effect only while the role is held. This is decided when the write is applied
// in the order of the log, so a late write of a former holder is refused with ErrLost.
//
// Contenders on one node compete like those on different nodes. A call that waits costs nothing,
// and leaves the queue when ctx ends. If a node loses its lease while it waits, it goes to the end
// of the queue. A node that drains does not wait in the queues of Public roles. A node that an
// operator has drained, or that shuts down, waits in no queue at all. Hold then waits until that is
// undone or the node is closed.
func (n *Node) Hold(ctx context.Context, r Role, f func(ctx context.Context, t Tenure) error) error {
	return n.roles.Hold(ctx, r, f)
}

// Move hands a role of Hold over to the node with that ID or name, which must be waiting for it. If
// node is empty, the best of the waiting contenders on other nodes gets it. Move may be called on
// any node. It returns when the other node holds the role or when ctx ends; in the second case the
// role may still move. A holder that got the role by Move keeps it until it gives it up, even if a
// better contender waits.
func (n *Node) Move(ctx context.Context, role, node string) error {
	return n.roles.Move(ctx, role, node)
}

// Holder returns the fence of the current holder of a role of Hold, as far as this node knows, and
// whether this node is the holder. The fence is 0 if no live node holds the role, or if this node
// held it and has lost its lease.
func (n *Node) Holder(role string) (fence uint64, own bool) {
	return n.roles.Holder(role)
}

// Remark sets a remark about a role, which Status of this node shows, such as why the node cannot
// serve it. An empty text removes the remark. It is for packages that build on Hold, such as vip.
func (n *Node) Remark(role, text string) {
	if n.remarks.set(role, text) {
		n.life.Changed.Notify()
	}
}

// Role names a task that one node does at a time, and says how much this node should be preferred
// for it; see hold.Role.
type Role = hold.Role

// Tenure is the time for which one node holds a role; see hold.Tenure.
type Tenure = hold.Tenure
