package flotilla

import (
	"context"
	"fmt"
	"iter"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/status"
)

// Status is what a node knows about itself and its cluster, without asking other nodes.
type Status = status.Status

// Member is one node of the cluster.
type Member = status.Member

// LeaseStatus is the state of a node's own lease; see the package documentation.
type LeaseStatus = status.Lease

// RoleStatus is a role that a node of the cluster holds, according to this node's state.
type RoleStatus = status.Role

// Certificate describes a certificate that a node serves.
type Certificate = status.Certificate

// TicketStatus describes the keys of session tickets that the cluster shares.
type TicketStatus = status.Tickets

// SpaceStatus says how full a budget of the replicated state is.
type SpaceStatus = status.Space

// BackupStatus describes the last automatic backup that was verified.
type BackupStatus = status.Backup

// WaitStatus describes something that a node has been waiting for, for at least some seconds.
type WaitStatus = status.Wait

// PeerStatus describes another node that this node cannot reach, or whose configuration differs
// from its own.
type PeerStatus = status.Peer

// Status returns what the node knows now. It is cheap and asks no other node.
func (n *Node) Status() Status {
	// The lease is checked before the state is taken, as for a read. Everything below that depends on
	// the lease uses this one answer.
	left := n.leases.Left()
	s := n.store.State()
	lease := n.leaseStatus(s, left)
	out := Status{
		ID:           n.self.ID,
		Name:         n.self.Name,
		Addr:         n.self.Addr,
		Cluster:      n.members.Ident.ClusterID(),
		Leader:       n.replica.Leader(),
		Term:         n.replica.Term(),
		Index:        s.Index,
		Version:      s.Version,
		Ready:        lease.Held && n.leases.IsCurrent() && n.life.Works.Err() == nil && n.life.Setback.Load() == nil,
		Draining:     n.life.Drained.Load() || n.life.Leaving.Load() || n.life.Cordoned.Load(),
		Drained:      n.life.Cordoned.Load(),
		Lease:        lease,
		Roles:        withRemarks(n.roleStatus(s, lease), n.remarks.copy()),
		Certificates: n.certificates(),
		Tickets:      ticketStatus(n.tickets.Current()),
		Backup:       n.upkeep.status(s, n.cfg.Backups.Every),
		Waiting:      n.upkeep.waiting.list(),
		Peers:        peerStatusOf(n.members.PeerStatus()),
	}
	if !n.cfg.Witness { // the limit is that of the others, which need not be its own
		out.Space = spaceOf(s, n.cfg.limits())
	}
	_, out.OnDemand = n.certs.OnDemand()
	if err := n.clocks.Check(clocks.MaxOffset); err != nil {
		out.Clock = err.Error()
	}
	out.SetAside = n.members.Ident.Identity().Kept
	if err := n.life.Failure(); err != nil {
		out.Err, out.Retries = err.Error(), n.life.Works.Err() == nil
	} else if n.replica.Stalled() && n.life.Open.Err() == nil {
		out.Err, out.Retries = "the disk hangs: a write to "+n.cfg.Dir+" is not done; check the disk", true
	}
	versions := n.upkeep.version.View()
	for _, srv := range n.replica.Servers() {
		known, ok := s.Member(string(srv.ID))
		if !ok {
			known, _ = n.peers.Get(string(srv.ID))
			known.ID = string(srv.ID)
		}
		m := memberOf(known)
		m.Voter, m.Demoted = srv.Suffrage == raft.Voter, s.IsDemoted(m.ID)
		if ses := s.Session(m.ID); ses != nil {
			m.Present, m.Suspect = true, ses.Suspect != 0
		}
		m.ClockAhead = n.clocks.Offset(m.ID)
		m.Supports, m.Since = versions.Of(m.ID)
		out.Members = append(out.Members, m)
		if m.ID == out.Leader {
			out.LeaderName = m.Name
		}
	}
	explainVotes(out.Members, n.cfg.RemoveDead)
	slices.SortFunc(out.Members, func(a, b Member) int { return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID) })
	return out
}

// memberOf returns a node's description of itself as a Member.
func memberOf(m state.Member) Member {
	return Member{ID: m.ID, Name: m.Name, Addr: m.Addr, InMemory: m.InMemory, Former: m.Former, Zone: m.Zone, Witness: m.Witness}
}

// explainVotes sets Why of all members.
func explainVotes(members []Member, removeDead time.Duration) {
	voters, all := 0, make([]membership.Member, len(members))
	for i, m := range members {
		all[i] = membership.Member{ID: m.ID, Zone: m.Zone, Witness: m.Witness, Demoted: m.Demoted, Votes: m.Voter, Absent: !m.Present}
		if m.Voter {
			voters++
		}
	}
	ofUse := membership.OfUse(all)
	for i := range members {
		m := &members[i]
		m.Why = whyOf(m, voters, slices.Contains(ofUse, m.ID), removeDead)
	}
}

// whyOf says why a member does not vote, or what to do about a voter that is gone. ofUse says that
// its vote would be of use.
func whyOf(m *Member, voters int, ofUse bool, removeDead time.Duration) string {
	switch {
	case m.Present && m.Voter && m.Demoted:
		return "an operator has demoted it; it votes until the others are a majority without it"
	case m.Present && m.Voter:
		return ""
	case m.Present && m.Demoted:
		return "an operator has demoted it (flotilla members promote undoes that)"
	case m.Present && voters >= membership.MaxVoters && !ofUse:
		return fmt.Sprintf("%d others vote; it votes when one of them is gone", voters)
	case m.Present && !ofUse && m.Witness:
		return "one witness votes at most, and only beside two other nodes"
	case m.Present && !ofUse:
		return "the voters survive the loss of a zone better without its vote; it votes when one of them is gone"
	case m.Present:
		return "it votes when it has been present and up to date for " + membership.SteadyTime.String()
	case m.InMemory:
		return "it is gone, and cannot come back without a directory: it is removed soon, if a majority is present"
	case m.Voter && voters > membership.MinVoters && removeDead > 0:
		return fmt.Sprintf("it is gone, and counts for the majority until another member can vote in its place, or for %v", removeDead)
	case m.Voter:
		return "it is gone, and counts for the majority until another member can vote in its place, or it is removed (flotilla members remove)"
	case removeDead > 0:
		return fmt.Sprintf("it is gone, and is removed when it has been gone for %v", removeDead)
	}
	return "it is gone, and stays a member until it is removed (flotilla members remove)"
}

// leaseStatus describes a lease that lasts for left.
func (n *Node) leaseStatus(s *state.State, left time.Duration) LeaseStatus {
	return LeaseStatus{
		Held: left > 0, LeftMillis: max(0, left.Milliseconds()), Session: n.self.Session(s), IdleMillis: n.leases.Idle().Milliseconds(),
	}
}

// roleStatus lists the roles. It does not name this node as a holder if the node has no lease.
func (n *Node) roleStatus(s *state.State, lease LeaseStatus) []RoleStatus {
	roles := rolesOf(s)
	for i := range roles {
		if roles[i].Holder == n.self.ID && !lease.Held {
			roles[i].Holder = ""
		}
	}
	return roles
}

// Watch yields the status now and after each change, until the loop ends, ctx is done or the node
// closes. A slow reader may skip intermediate states but always gets the latest.
func (n *Node) Watch(ctx context.Context) iter.Seq[Status] {
	return func(yield func(Status) bool) {
		var last Status
		for first := true; ; first = false {
			changed, applied := n.life.Changed.Wait(), n.store.Next()
			if now := n.Status(); first || !sameStatus(now, last) {
				if !yield(now) {
					return
				}
				last = now
			}
			select {
			case <-changed:
			case <-applied:
			case <-ctx.Done():
				return
			case <-n.life.Open.Done():
				return
			}
		}
	}
}

// sameStatus reports whether two statuses differ only in values that change with time alone.
func sameStatus(a, b Status) bool {
	a.Lease.LeftMillis, b.Lease.LeftMillis = 0, 0
	a.Lease.IdleMillis, b.Lease.IdleMillis = 0, 0
	a.Tickets.AgeSeconds, b.Tickets.AgeSeconds = 0, 0
	for _, s := range []*Status{&a, &b} {
		s.Certificates = slices.Clone(s.Certificates)
		for i := range s.Certificates {
			s.Certificates[i].DaysLeft = 0 // NotAfter shows the same
		}
	}
	return reflect.DeepEqual(a, b)
}

// certificates returns the declared certificates, then the first of those on demand.
func (n *Node) certificates() []Certificate {
	first, _ := n.certs.OnDemand()
	all := append(n.certs.Status(), first...)
	out := make([]Certificate, 0, len(all))
	for i := range all {
		c := &all[i]
		cert := Certificate{
			Name: c.Domain, Issuer: c.Issuer, Serial: c.Serial, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
			Renewal: c.Renewal, OCSPNextUpdate: c.OCSPNextUpdate, SelfSigned: c.SelfSigned,
			OnDemand: c.OnDemand, Next: c.Next, Failures: c.Failures,
		}
		if !c.NotAfter.IsZero() {
			cert.DaysLeft = int(math.Floor(time.Until(c.NotAfter).Hours() / 24))
		}
		if c.Err != nil {
			cert.Err = c.Err.Error()
		}
		out = append(out, cert)
	}
	return out
}

// rolesOf lists the roles of Hold by name, without locks.
func rolesOf(s *state.State) []RoleStatus {
	var out []RoleStatus
	it := s.Roles.Root().Iterator()
	it.SeekPrefix([]byte(keyspace.RolePrefix))
	for k, r, ok := it.Next(); ok; k, r, ok = it.Next() {
		q := r.Queue[0]
		out = append(out, RoleStatus{
			Name: strings.TrimPrefix(string(k), keyspace.RolePrefix), Group: q.Group, Holder: q.Node, Fence: q.Index, Yields: q.Yield != 0, Waiting: len(r.Queue) - 1,
			Since: time.Unix(0, q.Since), Outage: q.Outage, Pinned: q.Pinned, HoldDown: q.HoldDown != 0,
		})
	}
	return out
}

// peerStatusOf converts what a node knows about its peers for Status.
func peerStatusOf(all []membership.PeerStatus) []PeerStatus {
	var out []PeerStatus
	for _, p := range all {
		out = append(out, PeerStatus(p))
	}
	return out
}

// withRemarks adds the remarks to their roles. A role without a holder is listed if it has a
// remark. It empties the map.
func withRemarks(roles []RoleStatus, remarks map[string]string) []RoleStatus {
	if len(remarks) == 0 {
		return roles
	}
	for i := range roles {
		roles[i].Remark = remarks[roles[i].Name]
		delete(remarks, roles[i].Name)
	}
	for role, text := range remarks {
		roles = append(roles, RoleStatus{Name: role, Remark: text})
	}
	slices.SortFunc(roles, func(a, b RoleStatus) int { return strings.Compare(a.Name, b.Name) })
	return roles
}
