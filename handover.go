package flotilla

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// How a node on its way out hands over. It needs a majority of the voters for that. When they leave as well there is nobody to
// hand over to, and waiting for them would only make a stop of the whole cluster slow: so nodes tell each other that they leave.

// startLeaving has this node hold nothing more, and says so to the others.
func (n *Node) startLeaving() { n.setLeaving(true) }

// stopLeaving takes that back.
func (n *Node) stopLeaving() {
	n.setLeaving(false)
	n.keeper.renewed.Notify()
}

func (n *Node) setLeaving(leaving bool) {
	n.leaving.Store(leaving)
	n.changed.Notify()
	n.tenures.stir()
	n.tellLeaving(n.others())
}

// tellLeaving tells other nodes whether this one is on its way out.
func (n *Node) tellLeaving(ids []string) {
	var e codec.Encoder
	e.Byte(noteLeaving)
	e.Bool(n.leaving.Load())
	for _, id := range ids {
		n.port.Note(id, e.B)
	}
}

// hearLeaving notes that a peer is on its way out, or is not any more.
func (n *Node) hearLeaving(peer string, leaving bool) {
	if n.book.leave(peer, leaving) {
		n.changed.Notify()
	}
}

// majorityStays reports whether a majority of the voters stays when this node has gone: those that neither leave nor are known to be dead.
func (n *Node) majorityStays() bool {
	return n.hasMajority(func(id string) bool { return id != n.id && !n.book.leaves(id) && !n.port.HungUp(id) })
}

// majorityRuns reports whether the processes of a majority of the voters may still be there, this one among them.
func (n *Node) majorityRuns() bool {
	return n.hasMajority(func(id string) bool { return id == n.id || !n.port.HungUp(id) })
}

func (n *Node) hasMajority(counts func(id string) bool) bool {
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
func (n *Node) whileSomebodyStays(ctx context.Context, patience time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := beside(ctx, func(ctx context.Context) {
		var since time.Time
		for {
			changed := n.changed.Wait()
			switch {
			case !n.leaving.Load() || n.majorityStays():
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

// handOver gives up what this node holds, its leadership and its session, in this order, so that nobody waits for any of them.
func (n *Node) handOver(ctx context.Context) error {
	yielded := n.yieldAll(ctx, (*tenure).any)
	if n.raft.Load() == nil || n.failure() != nil || len(n.others()) == 0 {
		return yielded
	}
	ctx, cancel := context.WithTimeout(ctx, n.attemptTimeout())
	defer cancel()
	if !n.keeper.valid() {
		// A majority has not answered for as long as a lease: nobody would hear of it, and the cluster, if there is one, has given up this node.
		n.log.Info("nothing is handed over: the node has no lease")
		return yielded
	}
	ctx, stop := n.whileSomebodyStays(ctx, n.timing.HandOver())
	defer stop()
	moved := n.passLeadership(ctx)
	term := n.term()
	number := n.ownSession(n.store.State())
	n.keeper.lose(fmt.Errorf("%w: the node shuts down", ErrLost))
	if yielded != nil {
		time.Sleep(time.Until(n.keeper.until())) // whoever still holds something has until then; ctx may be over
	}
	ended := n.endSession(ctx, number, yielded == nil)
	if n.term() != term { // it has been elected meanwhile, by nodes that had not heard
		moved = n.passLeadership(ctx)
	}
	if errors.Is(context.Cause(ctx), errNobodyStays) || !n.majorityStays() {
		if moved != nil || ended != nil {
			n.log.Info("not all is handed over: no majority of the voters stays", "leadership", moved, "session", ended)
		}
		return yielded
	}
	return errors.Join(moved, yielded, ended)
}

// passLeadership hands the leadership over, if this node has it and there is somebody to have it.
func (n *Node) passLeadership(ctx context.Context) error {
	for ctx.Err() == nil && n.majorityStays() && n.raft.Load().State() == raft.Leader {
		changed := n.changed.Wait()
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

// endSession has the cluster end the session of this node at its own word. If not all was given up in time, something of it may be seen yet.
func (n *Node) endSession(ctx context.Context, number uint64, clean bool) error {
	for number != 0 {
		changed := n.changed.Wait()
		var e codec.Encoder
		e.Uint(number)
		e.Bool(!clean)
		_, err := n.askLeader(ctx, callEnd, e.B)
		if err == nil {
			break
		}
		select {
		case <-changed:
		case <-time.After(n.timing.Poll()):
		case <-ctx.Done():
			return fmt.Errorf("ending the session: %w", err)
		}
	}
	return nil
}

// any, isPublic and isRole are what yieldAll chooses by.
func (t *tenure) any() bool      { return true }
func (t *tenure) isPublic() bool { return t.public }
func (t *tenure) isRole() bool   { return strings.HasPrefix(t.key, keyspace.RolePrefix) }

// yieldAll has the chosen tenures of this node handed over, and waits for it.
func (n *Node) yieldAll(ctx context.Context, chosen func(*tenure) bool) error {
	for {
		ended := n.tenures.ended.Wait()
		all := slices.DeleteFunc(n.tenures.all(), func(t *tenure) bool { return !chosen(t) })
		for _, t := range all {
			t.yield()
		}
		var next time.Time // when the first of them must have ended
		all = slices.DeleteFunc(all, func(t *tenure) bool {
			end := t.Deadline()
			over := !time.Now().Before(end)
			if !over && (next.IsZero() || end.Before(next)) {
				next = end
			}
			return over
		})
		if len(all) == 0 {
			return nil
		}
		select {
		case <-ended:
		case <-time.After(time.Until(next)):
		case <-ctx.Done():
			return fmt.Errorf("%d roles are still held, %s among them: %w", len(all), all[0].key, context.Cause(ctx))
		}
	}
}
