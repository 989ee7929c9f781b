package flotilla

import (
	"context"
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/state"
)

const (
	// how long the first orders of a node wait for the other members
	peersTime   = 5 * time.Second
	peersPause  = 250 * time.Millisecond // then, time for them to open their ports
	barrierTime = 2 * time.Second        // longest delay of a first certificate

	strangersTime = 5 * time.Second // between looks for nodes of a former incarnation
)

// greetPeers greets the peers while there is no leader: they or this node may have moved, or this
// node may have been removed. With a leader, it greets them when the settings have changed that
// nodes compare, such as the domains that are served.
//
// In a cluster that was restored or recovered it also looks for nodes of the former one.
func (n *Node) greetPeers(ctx context.Context) {
	var sent membership.Settings
	met := time.Now()
	for first := true; ; first = false {
		second, own := n.life.Second.Wait(), n.ownSettings()
		if n.replica.Leader() == "" || first {
			if r := n.members.Greet(ctx); r.Err != nil && ctx.Err() == nil {
				n.members.GiveUp(r.Err)
				return
			}
		} else if len(own.Differ(sent)) > 0 || len(own.Values) != len(sent.Values) {
			n.members.Greet(ctx) // only to send the settings: the answers matter to nodes without a leader
		} else if time.Since(met) >= strangersTime && n.members.Ident.Identity().Incarnation != 0 {
			if err := n.members.MeetStrangers(ctx); err != nil && ctx.Err() == nil {
				n.members.GiveUp(err)
				return
			}
			met = time.Now()
		}
		sent = own
		if n.replica.Leader() != "" {
			select {
			case <-second:
			case <-ctx.Done():
				return
			}
			continue
		}
		select {
		case <-time.After(n.timing.Greeting()):
		case <-ctx.Done():
			return
		}
	}
}

// onApplied acts on the effects of applied entries. raft's goroutine calls it, and it does not
// block.
func (n *Node) onApplied(fx *state.Effects) {
	anything := fx == nil
	if anything { // a snapshot was restored
		fx = &state.Effects{Roles: true, Sessions: true, Tickets: true, Seals: true}
		fx.Claims = n.roles.Claims()
		n.certs.StoredAny()
	}
	n.observer.News(fx.News, n.self.ID)
	if fx.Sessions {
		n.leases.SessionsChanged()
		n.roles.OnSessions(n.store.State())
		n.life.Sessions.Notify()
		n.life.Tasks.Go(n.replica.Port.Recheck) // a newer process of a node may have replaced another
	}
	if len(fx.Claims) > 0 {
		n.roles.OnClaims(n.store.State(), fx.Claims)
	}
	if fx.Roles {
		n.roles.OnRoles()
	}
	if changed := n.cfg.hooks.Changed; changed != nil && (fx.Roles || fx.Sessions) {
		changed(n.store.State())
	}
	if fx.Seals {
		n.upkeep.seals.Changed.Notify()
		n.upkeep.rotation.Changed.Notify()
	}
	if fx.Tickets {
		n.tickets.Follow(n.store.State().Tickets)
		n.life.Changed.Notify()
	}
	if say := n.upkeep.space.look(n.store.State()); say != nil {
		n.life.Tasks.Go(say)
	}
	n.records.onApplied(fx, anything)
	n.replica.Snapshots.Applied()
	sites := keyspace.CertificateSites(fx.Keys)
	for _, site := range sites {
		n.certs.Stored(site)
	}
	if len(sites) > 0 || fx.Dropped {
		n.replica.Snapshots.Soon()
	}
	if len(sites) > 0 || anything {
		n.upkeep.certificates.Notify()
	}
}

// awaitPeers waits until all members have been present for a moment. It waits only in the first
// seconds after this node became ready for the first time. Otherwise the first node of a starting
// cluster would order certificates before other nodes have opened the ports that the authority may
// contact.
func awaitPeers(ctx context.Context, n *Node) {
	ctx, cancel := context.WithDeadline(ctx, n.leases.FirstReady().Add(peersTime))
	defer cancel()
	for steady := false; !steady && ctx.Err() == nil; {
		changed := n.life.Sessions.Wait()
		s := n.store.State()
		var moment <-chan time.Time
		if !slices.ContainsFunc(s.Servers, func(id string) bool { return s.Session(id) == nil }) {
			moment = time.After(peersPause)
		}
		select {
		case <-changed:
		case <-moment:
			steady = true
		case <-ctx.Done():
		}
	}
}

// barrier waits until every session has applied what this node has applied. It makes a write that
// changes nothing, because a write waits for exactly that. Without it, a client could find on one
// node what the next node does not have yet.
func barrier(ctx context.Context, n *Node) {
	ctx, cancel := context.WithTimeout(ctx, barrierTime)
	defer cancel()
	if err := n.storage.Delete(ctx, "flotilla/nothing"); err != nil {
		n.log.Debug("a first certificate is shown before it is known to be on every node", "error", err)
	}
}

// maintain makes one of the nodes that serve certificates clean the storage.
func maintain(ctx context.Context, n *Node) {
	select {
	case <-n.certs.Used():
	case <-ctx.Done():
	}
	for ctx.Err() == nil {
		err := n.roles.HoldClaim(ctx, state.ClaimRole{Role: keyspace.OwnPrefix + "maintain", Wait: true}, func(ctx context.Context) error {
			n.certs.Maintain(ctx)
			return ctx.Err()
		})
		n.log.Debug("this node no longer cleans the storage", "why", err)
		select {
		case <-time.After(time.Second): // a full state refuses the claim at once
		case <-ctx.Done():
		}
	}
}
