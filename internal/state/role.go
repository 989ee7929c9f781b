package state

import (
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// Role is the queue of the claims to a role. The first claim holds the role. The others wait, in
// the order in which they came.
type Role struct {
	// Queue has the holder's claim first. It is never empty in a state.
	Queue []Claim
}

// Ref names a claim: the command Seq of the session has made it.
type Ref struct {
	// Node is the ID of the node whose claim it is.
	Node string

	// Session is the number of that node's session, and Seq that of the command in the session.
	Session, Seq uint64
}

// Claim is a place in a role's queue.
type Claim struct {
	Ref

	// Index is the index of the entry that granted the claim, which is its fence. It is 0 while the
	// claim waits.
	Index uint64

	// Group is the group whose roles are spread over the nodes. Empty: the role is in no group.
	Group string

	priority int64

	// Yield is the index of the entry that asked the claim to hand over. 0: no entry has.
	Yield uint64

	// Transferee is the claim for which the holder was asked to hand over. It is set with Yield.
	Transferee Ref

	// Moved says that an operator asked the claim to hand over. The transferee then gets the role
	// even if another claim is better.
	Moved bool

	// Pinned says that an operator moved the role here. It stays even if another claim is better.
	Pinned bool

	public bool // see hold.Role

	// HoldDownTime is how long the role's effect may be visible after its lease has expired. See
	// hold.Role.
	HoldDownTime time.Duration

	// ReleasedOnDeath says that nothing of the role is visible after a death notice. See hold.Role.
	ReleasedOnDeath bool

	// HoldDown is the index of the entry that ended the claim's session. The claim holds the role
	// until the hold-down expires. 0: the claim is not in hold-down.
	HoldDown uint64

	// Expired says that the lease had expired when the hold-down began.
	Expired bool

	// Since is when the claim was granted, by the proposer's clock in Unix nanoseconds. It is shown,
	// never compared.
	Since int64

	// Outage is how long the role had no live holder before, as far as the leader knows. It is shown,
	// never compared.
	Outage time.Duration
}

// moment is when roles change hands: the index of the entry, and what is shown of it.
type moment struct {
	index  uint64
	time   int64 // Unix nanoseconds
	outage time.Duration
	cause  string // in words; empty: as the session ended
}

// ending is how a session ends.
type ending byte

const (
	// Nothing of the session is visible to clients any more.
	endsClean ending = iota + 1

	// The session's lease has expired. Roles may be visible for their hold-down time.
	endsExpired

	// The session's process is dead, and its guarded set has been removed from the kernel.
	endsByDeathNotice

	// The session's process is gone, or said to be. Its kernel acts until the lease would have
	// expired.
	endsUnconfirmed
)

// cause says in words how a session ended.
func (how ending) cause() string {
	switch how {
	case endsClean:
		return "the node said goodbye"
	case endsExpired:
		return "its lease has expired"
	case endsByDeathNotice:
		return "its process has died"
	}
	return "its process is gone"
}

// entersHoldDown reports whether a claim that holds a role continues to hold it when its session
// ends in the given way.
func (c *Claim) entersHoldDown(how ending) bool {
	switch {
	case !c.public:
		return false
	case how == endsUnconfirmed:
		return true
	case how == endsByDeathNotice:
		return !c.ReleasedOnDeath
	case how == endsExpired:
		return c.HoldDownTime > 0
	}
	return false
}

// cost returns how many bytes the claim counts.
func (c *Claim) cost(role string) int64 { return int64(len(role) + len(c.Group) + keyspace.ClaimCost) }

// grant makes the claim that of the holder.
func (c *Claim) grant(at moment) { c.Index, c.Since, c.Outage = at.index, at.time, at.outage }

func (r *Role) encode(e *codec.Encoder) {
	e.Uint(uint64(len(r.Queue)))
	for _, q := range r.Queue {
		q.Ref.encode(e)
		e.Uint(q.Index)
		e.String(q.Group)
		e.Int(q.priority)
		e.Uint(q.Yield)
		q.Transferee.encode(e)
		for _, b := range []bool{q.Moved, q.Pinned, q.public, q.Expired, q.ReleasedOnDeath} {
			e.Bool(b)
		}
		e.Int(int64(q.HoldDownTime))
		e.Uint(q.HoldDown)
		e.Int(q.Since)
		e.Int(int64(q.Outage))
	}
}

func decodeRole(d *codec.Decoder) *Role {
	r := &Role{}
	for range d.Count() {
		r.Queue = append(r.Queue, Claim{
			Ref: decodeRef(d), Index: d.Uint(), Group: d.String(), priority: d.Int(), Yield: d.Uint(), Transferee: decodeRef(d),
			Moved: d.Bool(), Pinned: d.Bool(), public: d.Bool(), Expired: d.Bool(), ReleasedOnDeath: d.Bool(),
			HoldDownTime: time.Duration(d.Int()), HoldDown: d.Uint(), Since: d.Int(), Outage: time.Duration(d.Int()),
		})
	}
	if len(r.Queue) == 0 {
		d.Bad = true // a role without a holder is not in a state
	}
	return r
}

func (r Ref) encode(e *codec.Encoder) {
	e.String(r.Node)
	e.Uint(r.Session)
	e.Uint(r.Seq)
}

func decodeRef(d *codec.Decoder) Ref { return Ref{Node: d.String(), Session: d.Uint(), Seq: d.Uint()} }
