package flotilla

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/roles"
)

// writeWait is how long a write may take before it is reported as waiting.
const writeWait = 2 * time.Second

// conditions are all conditions in which this node may wait. A standby that waits for a role is not
// among them, because that is its normal state; Status.Roles shows it.
func (n *Node) conditions() []condition {
	while := func(ok func() bool, why func() string) func() string {
		return func() string {
			if n.life.Works.Err() != nil || !ok() {
				return ""
			}
			return why()
		}
	}
	always := func() bool { return true }
	member := func() bool { return n.replica.Raft.Load() != nil }
	leaderless := func() bool { return member() && n.replica.Leader() == "" }
	unready := func() bool {
		return member() && n.replica.Leader() != "" && !n.leases.IsReady() && !n.life.Leaving.Load()
	}
	led := func() bool { return member() && n.replica.Leader() != "" }
	return []condition{
		{event.WaitBegun, "this node is in no cluster yet", while(func() bool { return !member() }, n.members.WhyNot)},
		{event.WaitBegun, "the cluster has no leader", while(leaderless, n.whyLeaderless)},
		{event.WaitBegun, "this node is not ready", while(unready, n.members.WhyNot)},
		{event.WaitBegun, "other nodes cannot be reached", while(led, n.members.Unreachable)},
		{event.ConfigDiffers, "nodes are configured differently", while(always, n.members.Misconfigured)},
		{event.WaitBegun, "writes wait", while(member, n.whyWrites)},
		// A node that is not ready does not know the cluster's certificates yet.
		{event.WaitBegun, "certificates are missing", while(n.leases.IsReady, n.certs.Missing)},
		{event.WaitBegun, "an eviction has not ended", while(n.leases.IsReady, n.upkeep.rotation.Unended)},
		{event.WaitBegun, "no backup can be made", while(n.leases.IsReady, n.upkeep.failure)},
		{event.WaitBegun, "roles wait until nothing of their last holder can be seen", while(member, n.heldDown)},
		{event.WaitBegun, "functions of Hold have not returned", while(n.life.Leaving.Load, func() string { return stillHeld(n.roles) })},
	}
}

// whyLeaderless says what is known about a cluster without a leader.
func (n *Node) whyLeaderless() string {
	why := fmt.Sprintf("a majority of the %d voters is needed", len(n.store.State().Voters))
	if all := n.members.Unreachable(); all != "" {
		return why + "; " + all
	}
	return why + "; this node can reach all that it knows, so see what they wait for"
}

// whyWrites says what the writes of this node wait for. It returns an empty string if none is late.
func (n *Node) whyWrites() string {
	count, since := n.replica.Writes.Oldest()
	if count == 0 || time.Since(since) < writeWait {
		return ""
	}
	why := "there is no leader"
	if leader := n.replica.Leader(); leader == n.self.ID {
		why = "a majority of the voters, or a node that is present, has not confirmed them"
	} else if leader != "" {
		why = "the leader, " + n.peers.NameOf(leader) + ", has not confirmed them"
	}
	if all := n.members.Unreachable(); all != "" {
		why += "; " + all
	}
	return why
}

// heldDown lists the roles that are in hold-down.
func (n *Node) heldDown() string {
	var all []string
	for key, c := range n.store.State().InHoldDown() {
		all = append(all, strings.TrimPrefix(key, keyspace.RolePrefix)+", last held by "+n.peers.NameOf(c.Node))
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// stillHeld lists what a node still holds while it shuts down.
func stillHeld(h *roles.Holder) string {
	all := h.Held((*roles.Tenure).Any)
	for i, key := range all {
		all[i] = strings.TrimPrefix(key, keyspace.RolePrefix)
	}
	return strings.Join(all, ", ")
}
