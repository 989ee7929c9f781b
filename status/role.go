package status

import "time"

// Role is a role that a node of the cluster holds, according to this node's state.
type Role struct {
	Name  string // as in hold.Role
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
	// Pinned says that the holder got the role by Node.Move: it keeps the role even if a better
	// contender waits. HoldDown says that the holder is gone and the role is in hold-down: others wait
	// until nothing of the holder can be seen.
	Pinned, HoldDown bool `json:",omitempty"`
	// Remark is this node's remark about the role, for example that it cannot put a floating address
	// in place, or that another machine claims it. The node need not be the holder. Other nodes do not
	// know the remark.
	Remark string `json:",omitempty"`
}
