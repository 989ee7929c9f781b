package flotilla

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/guard"
	_ "github.com/flotilla-ha/flotilla/internal/guard/reporter" // Config.Guard runs this binary again
)

// guardTime is how long a guard may take to start.
const guardTime = 10 * time.Second

// Hold waits until this node alone in the cluster holds the role, and calls f. It gives the role up
// when f returns or panics, and the next contender gets it in the same step. Hold returns f's
// error.
//
// The context of f ends with ctx. It also ends
//   - when the node's lease is about to end because the node has not reached a majority of the
//     voters. The cause then wraps ErrLost. f must return by the tenure's Deadline, which is about
//     a fifth of a lease away. Another node may hold the role after that.
//   - when the role is to be handed over: a better contender waits, Move was called, or the node
//     shuts down. The cause then is ErrYielded. f has ten seconds from then on, for as long as the
//     lease lasts. Another node gets the role when f returns.
//
// If f then returns nil or its context's error, Hold returns the cause. A Storage write with f's
// context takes effect only while the role is held. The cluster checks that where it orders the
// writes, so it refuses a late write of a former holder with ErrLost.
//
// Contenders on one node compete like those on different nodes. A call that waits costs nothing and
// leaves the queue when ctx ends. A node that loses its lease while it waits goes to the end of the
// queue. A node that shuts down, or that an operator has drained, waits in no queue. Hold then
// waits until that is undone or the node is closed.
func (n *Node) Hold(ctx context.Context, r Role, f func(ctx context.Context, t Tenure) error) error {
	return n.roles.Hold(ctx, r, f)
}

// HoldLoop is Hold again and again, until ctx ends. Then it returns the cause of that. It returns
// ErrClosed when the node is closed, and the reason if the node stops working for good.
//
// What comes after f has returned:
//   - If the role was handed over, or the lease was lost, HoldLoop claims the role again at once.
//     It then waits in the queue behind the others.
//   - If f returned nil by itself, it is done for now. HoldLoop claims the role again after a
//     second. A job that runs for as long as this node holds the role returns when its context
//     ends.
//   - After another error HoldLoop waits before it claims the role again: a second, and twice as
//     long after each further error, up to a minute. Another node may have the role meanwhile. A
//     tenure without an error, or of a minute, makes the next pause short again. The log gets a
//     warning about each error, with the pause. The same goes for an error of Hold itself.
//
// A role that is malformed, and a node that is a witness, are errors at once. A panic of f ends
// HoldLoop.
func (n *Node) HoldLoop(ctx context.Context, r Role, f func(ctx context.Context, t Tenure) error) error {
	return n.roles.HoldLoop(ctx, r, f)
}

// HoldPublic is Hold for a role that can be seen outside the process, as a floating address can:
// see hold.Public. The context of f also ends with the cause ErrYielded when the node begins to
// drain, and a node that drains waits in no queue of such a role. Package vip uses HoldPublic.
func (n *Node) HoldPublic(ctx context.Context, r Role, p hold.Public, f func(ctx context.Context, t Tenure) error) error {
	return n.roles.HoldPublic(ctx, r, p, f)
}

// Move has a role of Hold handed over to the node with the given ID or name. That node must be
// waiting for the role. If node is empty, the best of the other contenders gets it. Move may be
// called on any node. It returns when the other node holds the role, or when ctx ends; the role may
// still move after that. The new holder keeps the role until it gives it up, even if other
// contenders are better.
func (n *Node) Move(ctx context.Context, role, node string) error {
	if err := n.roles.Move(ctx, role, node); err != nil {
		return errs.Edge("moving the role "+role, err)
	}
	return nil
}

// Holder returns who holds a role of Hold, as this node knows it. It asks no other node: a node
// that is cut off returns what it knew last, and a dead node is the holder until its lease has
// ended. The result is the zero hold.Holder if no node holds the role, or if this node held it and
// has lost its lease.
func (n *Node) Holder(role string) hold.Holder { return n.roles.Current(role) }

// Remark makes Status say something about a role on this node, such as why the node cannot serve
// it. An empty text removes the remark. It is for packages that build on Hold, such as vip.
func (n *Node) Remark(role, text string) {
	if n.remarks.set(role, text) {
		n.life.Changed.Notify()
	}
}

// startGuard starts the guard process, or takes a share of the one that this program has.
func startGuard(ctx context.Context, log *slog.Logger) (*guard.Share, error) {
	bounded, cancel := context.WithTimeout(ctx, guardTime)
	defer cancel()
	g, err := guard.Join(bounded, guard.Notices, log)
	if err == nil {
		if err = g.Await(bounded); err == nil {
			return g, nil
		}
		g.Close() // which has not worked
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("flotilla: starting the guard process: %w", context.Cause(ctx))
	}
	return nil, &ConfigError{
		Field:  "Guard",
		Reason: "the guard process does not start; leave Guard out, and what a dead process held moves when its lease has ended",
		Err:    err,
	}
}

// endGuard gives a share of the guard process back, if there is one.
func endGuard(g *guard.Share) error {
	if g == nil {
		return nil
	}
	return g.Close()
}

// Role names a task that one node performs at a time, and says how much this node wants it: see
// hold.Role.
type Role = hold.Role

// Tenure is the time for which one node holds a role; see hold.Tenure.
type Tenure = hold.Tenure

// remarks are this node's remarks about roles, by the role's name.
type remarks struct {
	mu  sync.Mutex
	all map[string]string
}

// set replaces the remark about a role, and reports whether it has changed.
func (r *remarks) set(role, text string) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all[role] == text {
		return false
	}
	if text == "" {
		delete(r.all, role)
		return true
	}
	if r.all == nil {
		r.all = make(map[string]string)
	}
	r.all[role] = text
	return true
}

// copy returns all remarks. The caller may change the map.
func (r *remarks) copy() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.all)
}
