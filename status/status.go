package status

import "time"

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
	Ready    bool   // see Node.Ready of package flotilla
	Draining bool   // the node shuts down, or is Drained: send it no new clients
	// an operator has drained the node, until that is undone: it holds no roles either
	Drained bool   `json:",omitempty"`
	Err     string // why the node takes no part in the cluster, and the remedy; empty: it takes part
	// the node tries again by itself, and Err ends when its cause does, such as a full disk
	Retries bool `json:",omitempty"`
	// SetAside is a directory in that of the node, with the state of the node that this one was
	// before. That state was an older copy, for example from a backup, or the cluster was restored or
	// recovered since. The directory may be deleted.
	SetAside string `json:",omitempty"`
	Lease    Lease
	Members  []Member
	Roles    []Role
	// Certificates are those that this node serves: all declared ones, and the hundred on-demand ones
	// that expire first. OnDemand is the number of on-demand certificates in memory.
	Certificates []Certificate
	OnDemand     int `json:",omitempty"`
	// Clock says why this node's wall clock cannot be relied on. It is then more than an hour away
	// from the clocks of most peers, and this node orders and deletes no certificates until it is set.
	// Empty: the clock is all right.
	Clock   string `json:",omitempty"`
	Tickets Tickets
	// Space says how full the replicated state is.
	Space []Space
	// Backup is the last automatic backup. Nil: there was none, and this node is to make none.
	Backup *Backup `json:",omitempty"`
	// Waiting is what the node has been waiting for for some seconds. Peers are the nodes that it
	// cannot reach, or whose configuration differs from its own. Both are empty when all is well. The
	// log has the same information.
	Waiting []Wait `json:",omitempty"`
	Peers   []Peer `json:",omitempty"`
}

// Lease is the state of a node's own lease: see the documentation of package flotilla.
type Lease struct {
	Held       bool   // false: the node holds no locks or roles, and its reads may be old
	LeftMillis int64  // milliseconds until it expires if it is not renewed
	Session    uint64 // number of the node's session; 0: it has none
	// IdleMillis is how long ago the loop ran that renews the lease, in milliseconds. It is below a
	// tenth of a second or so while the node works, with WAN timing below a second, and with or
	// without a majority. It grows while the node hangs: so a watchdog may rely on it. 0 when Err is
	// final, because the loop has ended then.
	IdleMillis int64 `json:",omitempty"`
}

// Wait describes something that a node has been waiting for, for at least some seconds.
type Wait struct {
	What  string // what waits, or is wrong
	Why   string // the nodes that it waits for, and what is known about them
	Since time.Time
}

// Peer describes another node that this node cannot reach, or whose configuration differs from its
// own.
type Peer struct {
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
