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

	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/hashicorp/raft"
)

// Status is what a node knows of itself and its cluster, without asking anybody.
type Status struct {
	ID         string // of this node
	Name       string
	Addr       string // what peers dial
	Cluster    string // the cluster's identity; empty: none yet
	Leader     string // the leader's ID; empty: none known
	LeaderName string
	Term       uint64 // raft's
	Index      uint64 // of the newest entry that this node has applied
	Ready      bool   // see Node.Ready
	Draining   bool   // on the way out, or Drained: no new clients, please
	Drained    bool   `json:",omitempty"` // by an operator, until he undoes that: it holds no roles either
	Err        string // why the node takes no part in the cluster, and what to do; empty: it does
	Retries    bool   `json:",omitempty"` // the node tries again by itself, and Err ends with its cause: a disk that is full, for one
	// SetAside is a directory in Config.Dir with the state of another node, which this one was before: it was
	// an older copy, for example from a backup. It may be deleted.
	SetAside string `json:",omitempty"`
	Lease    LeaseStatus
	Members  []Member
	Roles    []RoleStatus
	// Certificates are those that this node serves: all declared ones, and of those on demand the hundred that expire first. OnDemand is how
	// many of those there are in memory.
	Certificates []Certificate
	OnDemand     int `json:",omitempty"`
	// Clock says that this node's wall clock is not to be relied on, and why: it is more than an hour away from those of most of its peers, and
	// no certificates are ordered or deleted here until it is set; empty: all is well.
	Clock   string `json:",omitempty"`
	Tickets TicketStatus
	// Space says how full the replicated state is.
	Space []SpaceStatus
	// Waiting is what the node has waited for for some seconds, and Peers are the nodes that it cannot reach, or whose configuration differs from its own.
	// Both are empty when all is well. The log has them too.
	Waiting []WaitStatus `json:",omitempty"`
	Peers   []PeerStatus `json:",omitempty"`
}

// Member is one node of the cluster.
type Member struct {
	ID    string // 32 hexadecimal digits, made up once
	Name  string // for people
	Addr  string // what peers dial
	Voter bool   `json:",omitempty"` // false while it is new, and beyond five voters; it serves all the same

	// Present says that the cluster takes it for alive: it has a session, on which its locks and roles hang. Suspect says that the leader has
	// not heard of it, and that its session ends unless it is heard of again.
	Present, Suspect bool `json:",omitempty"`

	// ClockAhead is by how much its wall clock is ahead of this node's, negative if it is behind; 0: by less than a minute, or nothing is known.
	ClockAhead time.Duration `json:",omitempty"`

	// InMemory says that it has no directory, and so cannot come back once its process has ended. Former is the ID of the node that it was before it
	// set its directory aside, which cannot come back either.
	InMemory bool   `json:",omitempty"`
	Former   string `json:",omitempty"`

	// Why says why it does not vote, or what is to be done about a voter that is gone. Empty: it votes and all is well.
	Why string `json:",omitempty"`
}

// LeaseStatus is the state of a node's own lease, see package documentation.
type LeaseStatus struct {
	Held       bool   // false: the node holds no locks and roles, and what it reads may be old
	LeftMillis int64  // how long it lasts if nobody renews it
	Session    uint64 // number of the node's session, 0: it has none
}

// RoleStatus is a role that a node of the cluster holds, as this node has heard of it.
type RoleStatus struct {
	Name    string // as in Role
	Group   string // of the holder's claim
	Holder  string // the holder's node ID; empty: none is known, because this node has lost its lease, or nobody holds it and there is a Remark
	Fence   uint64 // of its tenure
	Yields  bool   // it has been asked to hand over
	Waiting int    // others that want it
	// Since is when it got the role, by the clock of the node that wrote so. Outage is for how long nobody that lived had it before, as far as the leader
	// knows: 0 if it was handed over.
	Since  time.Time
	Outage time.Duration
	// Pinned says that it got the role by Move, and nobody better takes it. Ghost says that it is gone, and others wait until nothing of it can be seen.
	Pinned, Ghost bool `json:",omitempty"`
	// Remark is what this node, whether it is the holder or not, has to say of the role: that it cannot put a floating address in place, or that
	// another machine claims it. Others do not know of it.
	Remark string `json:",omitempty"`
}

// Certificate is one that a node serves.
type Certificate struct {
	Name     string    // the domain
	Issuer   string    // its common name; empty: there is no certificate yet
	Serial   string    // hexadecimal
	NotAfter time.Time // zero: there is none yet
	DaysLeft int       // until NotAfter, negative after it; 0 if there is none yet
	// SelfSigned says that the cluster has never had a certificate for Name, and clients get a self-signed one until the authority has
	// answered. Issuer, Serial and NotAfter are empty then.
	SelfSigned bool `json:",omitempty"`
	// OnDemand says that Name was not declared: a handshake asked for it, and TLS.Configure's OnDemand allowed it.
	OnDemand bool   `json:",omitempty"`
	Err      string // why there is none, or none newer; empty: all is well
	// Next is when the next order is tried, if there is an Err. Failures is how many orders for Name the authority has refused since the last that
	// it did not, whichever node placed them.
	Next     time.Time `json:",omitzero"`
	Failures int       `json:",omitempty"`
}

// Status returns what the node knows now. It is cheap and asks nobody.
func (n *Node) Status() Status {
	// The lease is asked for before the state is taken, as for a read; all that depends on it below goes by this one answer.
	left := n.keeper.Left()
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
		Ready:        lease.Held && n.keeper.IsCurrent() && n.life.Works.Err() == nil && n.life.Setback.Load() == nil,
		Draining:     n.life.Drained.Load() || n.life.Leaving.Load() || n.life.Cordoned.Load(),
		Drained:      n.life.Cordoned.Load(),
		Lease:        lease,
		Roles:        n.remarks.add(n.roleStatus(s, lease)),
		Certificates: n.certificates(),
		Tickets:      ticketStatus(n.tickets.Current()),
		Space:        spaceOf(s, n.cfg.MaxState),
		Waiting:      n.waiting.list(),
		Peers:        peerStatusOf(n.members.PeerStatus()),
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
	for _, srv := range n.replica.Servers() {
		known, ok := s.Member(string(srv.ID))
		if !ok {
			known, _ = n.book.Get(string(srv.ID))
			known.ID = string(srv.ID)
		}
		m := memberOf(known)
		m.Voter = srv.Suffrage == raft.Voter
		if ses := s.Session(m.ID); ses != nil {
			m.Present, m.Suspect = true, ses.Suspect != 0
		}
		m.ClockAhead = n.clocks.Offset(m.ID)
		out.Members = append(out.Members, m)
		if m.ID == out.Leader {
			out.LeaderName = m.Name
		}
	}
	voters := 0
	for _, m := range out.Members {
		if m.Voter {
			voters++
		}
	}
	for i := range out.Members {
		out.Members[i].Why = out.Members[i].why(voters, n.cfg.RemoveDead)
	}
	slices.SortFunc(out.Members, func(a, b Member) int { return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID) })
	return out
}

// memberOf returns what a node says of itself as a Member.
func memberOf(m state.Member) Member {
	return Member{ID: m.ID, Name: m.Name, Addr: m.Addr, InMemory: m.InMemory, Former: m.Former}
}

// why says why a member does not vote, or what is to be done about a voter that is gone.
func (m *Member) why(voters int, removeDead time.Duration) string {
	switch {
	case m.Present && m.Voter:
		return ""
	case m.Present && voters >= membership.MaxVoters:
		return fmt.Sprintf("%d others vote; it votes when one of them is gone", voters)
	case m.Present:
		return "it votes when it has been there, and up to date, for " + membership.SteadyTime.String()
	case m.InMemory:
		return "it is gone, and cannot come back without a directory: it is removed soon, if a majority is there"
	case m.Voter && voters > membership.MinVoters && removeDead > 0:
		return fmt.Sprintf("it is gone, and counts for the majority until another member can vote in its place, or for %v", removeDead)
	case m.Voter:
		return "it is gone, and counts for the majority until another member can vote in its place, or it is removed (flotilla members remove)"
	case removeDead > 0:
		return fmt.Sprintf("it is gone, and is removed when it has been for %v", removeDead)
	}
	return "it is gone, and stays a member until it is removed (flotilla members remove)"
}

// leaseStatus describes the lease of which so much is left.
func (n *Node) leaseStatus(s *state.State, left time.Duration) LeaseStatus {
	return LeaseStatus{Held: left > 0, LeftMillis: max(0, left.Milliseconds()), Session: n.self.Session(s)}
}

// roleStatus lists the roles, without this node as the holder of what it may hold no more.
func (n *Node) roleStatus(s *state.State, lease LeaseStatus) []RoleStatus {
	roles := rolesOf(s)
	for i := range roles {
		if roles[i].Holder == n.self.ID && !lease.Held {
			roles[i].Holder = ""
		}
	}
	return roles
}

// Watch yields the status now and after each change, until the loop ends, ctx is done or the node closes. Whoever is slow misses
// what lay between, never the newest.
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

// sameStatus reports whether nothing has changed but that time has passed.
func sameStatus(a, b Status) bool {
	a.Lease.LeftMillis, b.Lease.LeftMillis = 0, 0
	a.Tickets.AgeSeconds, b.Tickets.AgeSeconds = 0, 0
	for _, s := range []*Status{&a, &b} {
		s.Certificates = slices.Clone(s.Certificates)
		for i := range s.Certificates {
			s.Certificates[i].DaysLeft = 0 // NotAfter says as much
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

// rolesOf lists the roles of Hold by name; locks are not among them.
func rolesOf(s *state.State) []RoleStatus {
	var out []RoleStatus
	it := s.Roles.Root().Iterator()
	it.SeekPrefix([]byte(keyspace.RolePrefix))
	for k, r, ok := it.Next(); ok; k, r, ok = it.Next() {
		q := r.Queue[0]
		out = append(out, RoleStatus{
			Name: strings.TrimPrefix(string(k), keyspace.RolePrefix), Group: q.Group, Holder: q.Node, Fence: q.Index, Yields: q.Yield != 0, Waiting: len(r.Queue) - 1,
			Since: time.Unix(0, q.Since), Outage: q.Outage, Pinned: q.Pinned, Ghost: q.HoldDown != 0,
		})
	}
	return out
}

// PeerStatus is another node that this one cannot reach, or whose configuration differs from its own.
type PeerStatus struct {
	ID, Name string // empty: not known; at that address nobody has answered yet
	Addr     string // that this node dials
	// Err is why it cannot be reached, since Since; empty: it can.
	Err   string
	Since time.Time
	// Stopped says that it was shut down, by its own word.
	Stopped bool `json:",omitempty"`
	// Differs lists the settings that all nodes should have the same, and that this one has otherwise: "Timing: fast here, lan there".
	Differs []string `json:",omitempty"`
}

// peerStatusOf returns what a node knows of others for Status.
func peerStatusOf(all []membership.PeerStatus) []PeerStatus {
	var out []PeerStatus
	for _, p := range all {
		out = append(out, PeerStatus(p))
	}
	return out
}
