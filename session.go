package flotilla

import (
	"context"
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// told acts upon what the state machine has applied. It is called by raft's goroutine and does not block.
func (n *Node) told(fx *state.Effects) {
	if fx == nil { // from a snapshot: anything may have changed
		fx = &state.Effects{Roles: true, Sessions: true, Tickets: true}
		fx.Claims = n.roles.Claims()
		n.certs.StoredAny()
	}
	if fx.Sessions {
		n.keeper.SessionsChanged()
		n.roles.OnSessions(n.store.State())
		n.life.Sessions.Notify()
		n.life.Tasks.Go(n.replica.Port.Recheck) // another process may have taken a node's place
	}
	if len(fx.Claims) > 0 {
		n.roles.OnClaims(n.store.State(), fx.Claims)
	}
	if fx.Roles {
		n.roles.OnRoles()
	}
	if fx.Tickets {
		n.tickets.Follow(n.store.State().Tickets)
		n.life.Changed.Notify()
	}
	if say := n.space.look(n.store.State()); say != nil {
		n.life.Tasks.Go(say)
	}
	sites := keyspace.CertificateSites(fx.Keys)
	for _, site := range sites {
		n.certs.Stored(site)
	}
	if len(sites) > 0 || fx.Dropped {
		n.replica.SnapshotSoon()
	}
}

// company waits until all members have been there for a moment, in the first seconds after this node was ready for the first time. The
// first node of a cluster that starts would order otherwise while others have not opened the ports yet that the authority may come to.
func (n *Node) company(ctx context.Context) {
	ctx, cancel := context.WithDeadline(ctx, n.keeper.Started.Add(time.Duration(n.keeper.First.Load())+companyTime))
	defer cancel()
	for settled := false; !settled && ctx.Err() == nil; {
		changed := n.life.Sessions.Wait()
		s := n.store.State()
		var moment <-chan time.Time
		if !slices.ContainsFunc(s.Servers, func(id string) bool { return s.Session(id) == nil }) {
			moment = time.After(companyPause)
		}
		select {
		case <-changed:
		case <-moment:
			settled = true
		case <-ctx.Done():
		}
	}
}

// settled waits until every session has applied what this node has, by a write that changes nothing: that is what a write waits for.
// Whoever shows something that it read before that has a client find nothing on the next node.
func (n *Node) settled(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	if err := n.storage.Delete(ctx, "flotilla/nothing"); err != nil {
		n.log.Debug("a first certificate is shown before it is known to be on every node", "error", err)
	}
}

// maintain has one node of those that serve certificates keep the storage clean.
func (n *Node) maintain(ctx context.Context) {
	select {
	case <-n.certs.Used():
	case <-ctx.Done():
	}
	for ctx.Err() == nil {
		err := n.roles.HoldClaim(ctx, state.ClaimRole{Role: keyspace.OwnPrefix + "maintain", Wait: true}, func(ctx context.Context) error {
			n.certs.Maintain(ctx)
			return ctx.Err()
		})
		n.log.Debug("this node keeps the storage clean no longer", "why", err)
		select {
		case <-time.After(time.Second): // a state without room refuses at once
		case <-ctx.Done():
		}
	}
}
