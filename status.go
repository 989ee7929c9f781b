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
)

// Status is what a node knows about itself and its cluster, without asking other nodes.
type Status struct {
	ID         string // of this node
	Name       string
	Addr       string // what peers dial
	Cluster    string // the cluster's ID; empty: none yet
	Leader     string // the leader's ID; empty: none known
	LeaderName string
	Term       uint64 // raft's
	Index      uint64 // of the newest entry that this node has applied
	// the cluster version, which says what the nodes may write; every node supports it
	Version  uint64 `json:",omitempty"`
	Ready    bool   // see Node.Ready
	Draining bool   // the node shuts down, or is Drained: send it no new clients
	// an operator has drained the node, until that is undone: it holds no roles either
	Drained bool   `json:",omitempty"`
	Err     string // why the node takes no part in the cluster, and the remedy; empty: it takes part
	// the node tries again by itself, and Err ends when its cause does, such as a full disk
	Retries bool `json:",omitempty"`
	// SetAside is a directory in Config.Dir with the state of the node that this one was before. That
	// state was an older copy, for example from a backup, or the cluster was restored or recovered
	// since. The directory may be deleted.
	SetAside string `json:",omitempty"`
	Lease    LeaseStatus
	Members  []Member
	Roles    []RoleStatus
	// Certificates are those that this node serves: all declared ones, and the hundred on-demand ones
	// that expire first. OnDemand is the number of on-demand certificates in memory.
	Certificates []Certificate
	OnDemand     int `json:",omitempty"`
	// Clock says why this node's wall clock cannot be relied on. It is then more than an hour away
	// from the clocks of most peers, and this node orders and deletes no certificates until it is set.
	// Empty: the clock is all right.
	Clock   string `json:",omitempty"`
	Tickets TicketStatus
	// Space says how full the replicated state is.
	Space []SpaceStatus
	// Backup is the last automatic backup. Nil: there was none, and this node is to make none.
	Backup *BackupStatus `json:",omitempty"`
	// Waiting is what the node has been waiting for for some seconds. Peers are the nodes that it
	// cannot reach, or whose configuration differs from its own. Both are empty when all is well. The
	// log has the same information.
	Waiting []WaitStatus `json:",omitempty"`
	Peers   []PeerStatus `json:",omitempty"`
}

// Member is one node of the cluster.
type Member struct {
	ID   string // 32 random hexadecimal digits, made once
	Name string // for people
	Addr string // what peers dial
	// false while it is new, if the others are enough, and if it is Demoted; it serves clients all the
	// same
	Voter bool `json:",omitempty"`

	// Zone is its failure domain: see Config.Zone. Witness says that it votes and does nothing else:
	// see Config.Witness. Demoted says that an operator does not want it to vote.
	Zone             string `json:",omitempty"`
	Witness, Demoted bool   `json:",omitempty"`

	// Present says that the cluster considers it alive: it has a session, to which its locks and roles
	// belong. Suspect says that the leader has not heard from it. Its session ends unless the leader
	// hears from it again.
	Present, Suspect bool `json:",omitempty"`

	// ClockAhead is how far its wall clock is ahead of this node's, or negative if it is behind. 0:
	// the difference is below a minute or not known.
	ClockAhead time.Duration `json:",omitempty"`

	// InMemory says that it has no directory. It cannot come back once its process has ended. Former
	// is the ID of the node that it was before it set its directory aside. That node cannot come back
	// either.
	InMemory bool   `json:",omitempty"`
	Former   string `json:",omitempty"`

	// Why says why it does not vote, or what to do about a voter that is gone. Empty: it votes and is
	// present.
	Why string `json:",omitempty"`

	// Supports is the newest cluster version that its program supports. 0: it is away, or has not
	// said so to this node. If that is a later one than Status.Version, Since is when the leader has
	// first seen its present process. Zero: this node does not lead.
	Supports uint64    `json:",omitempty"`
	Since    time.Time `json:",omitzero"`
}

// LeaseStatus is the state of a node's own lease; see the package documentation.
type LeaseStatus struct {
	Held       bool   // false: the node holds no locks or roles, and its reads may be old
	LeftMillis int64  // milliseconds until it expires if it is not renewed
	Session    uint64 // number of the node's session; 0: it has none
	// IdleMillis is how long ago the loop ran that renews the lease, in milliseconds. It is below a
	// tenth of a second or so while the node works, with WAN timing below a second, and with or
	// without a majority. It grows while the node hangs: so a watchdog may rely on it. 0 when Err is
	// final, because the loop has ended then.
	IdleMillis int64 `json:",omitempty"`
}

// RoleStatus is a role that a node of the cluster holds, according to this node's state.
type RoleStatus struct {
	Name  string // as in Role
	Group string // of the holder's claim
	// the holder's node ID. Empty: no holder is known, because this node has lost its lease, or the
	// role has no holder and is listed for its Remark
	Holder  string
	Fence   uint64 // of its tenure
	Yields  bool   // it has been asked to hand over
	Waiting int    // number of other contenders
	// Since is when the holder got the role, by the clock of the node that wrote the entry. Outage is
	// how long no live node held it before that, as far as the leader knows. It is 0 if the role was
	// handed over.
	Since  time.Time
	Outage time.Duration
	// Pinned says that the holder got the role by Move: it keeps the role even if a better contender
	// waits. HoldDown says that the holder is gone and the role is in hold-down: others wait until
	// nothing of the holder can be seen.
	Pinned, HoldDown bool `json:",omitempty"`
	// Remark is this node's remark about the role, for example that it cannot put a floating address
	// in place, or that another machine claims it. The node need not be the holder. Other nodes do not
	// know the remark.
	Remark string `json:",omitempty"`
}

// Certificate describes a certificate that a node serves.
type Certificate struct {
	Name     string    // the domain
	Issuer   string    // the issuer's common name; empty: there is no certificate yet
	Serial   string    // hexadecimal
	NotAfter time.Time // zero: there is none yet
	DaysLeft int       // until NotAfter, negative after it; 0 if there is none yet
	// SelfSigned says that the cluster has never had a certificate for Name. Clients get a self-signed
	// one until the authority has answered. Issuer, Serial and NotAfter are empty then.
	SelfSigned bool `json:",omitempty"`
	// OnDemand says that Name was not declared: a handshake asked for it, and OnDemand in
	// TLS.Configure allowed it.
	OnDemand bool   `json:",omitempty"`
	Err      string // why there is no certificate, or no newer one; empty: all is well
	// Next is when the next order is tried, if Err is not empty. Failures is how many orders for Name
	// the authority has refused since the last one that it did not refuse, on all nodes together.
	Next     time.Time `json:",omitzero"`
	Failures int       `json:",omitempty"`
}

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
		m.Why = m.why(voters, slices.Contains(ofUse, m.ID), removeDead)
	}
}

// why says why a member does not vote, or what to do about a voter that is gone. ofUse says that
// its vote would be of use.
func (m *Member) why(voters int, ofUse bool, removeDead time.Duration) string {
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
	var out []Certificate
	first, _ := n.certs.OnDemand()
	for _, c := range append(n.certs.Status(), first...) {
		cert := Certificate{
			Name: c.Domain, Issuer: c.Issuer, Serial: c.Serial, NotAfter: c.NotAfter, SelfSigned: c.SelfSigned,
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

// PeerStatus describes another node that this node cannot reach, or whose configuration differs
// from its own.
type PeerStatus struct {
	ID, Name string // empty: not known, because no node has answered at Addr yet
	Addr     string // the address that this node dials
	// Err is why it has not been reachable since Since. Empty: it can be reached.
	Err   string
	Since time.Time
	// Stopped says that the node has announced its shutdown.
	Stopped bool `json:",omitempty"`
	// Differs lists the settings that should be the same on all nodes and differ between the two:
	// "Timing: fast here, lan there".
	Differs []string `json:",omitempty"`
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
