package state

import (
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
)

// Role is the queue of the claims to a role. The first one holds it. The others wait in the order
// in which they came.
type Role struct {
	Queue []Claim // never empty in a state
}

// Ref names a claim: the command Seq of the session has made it.
type Ref struct {
	Node         string // whose claim it is
	Session, Seq uint64 // of that node, and of the command in the session
}

// Claim is a place in a role's queue.
type Claim struct {
	Ref
	Index      uint64 // of the entry that granted it, which is its fence; 0 while it waits
	Group      string // roles of a group are spread over the nodes; empty: none
	priority   int64
	Yield      uint64 // index of the entry that asked it to hand over; 0: none has
	Transferee Ref    // the claim that asked for it
	// an operator asked: the transferee gets the role even if another claim is better
	Moved  bool
	Pinned bool // an operator moved the role here: it stays, even if another claim is better

	public          bool          // see hold.Role
	HoldDownTime    time.Duration // see hold.Role
	ReleasedOnDeath bool          // see hold.Role
	// index of the entry that ended its session: it holds the role until the hold-down expires; 0: it
	// is alive
	HoldDown uint64
	Expired  bool // its lease had expired by then

	// clock of the proposer of the grant, in Unix nanoseconds; shown, never compared
	Since int64
	// for which the role had no live holder before, as far as the leader knows; shown
	Outage time.Duration
}

// moment is when roles change hands: the index of the entry, and what is shown of it.
type moment struct {
	index  uint64
	time   int64 // Unix nanoseconds
	outage time.Duration
}

// ending is how a session ends.
type ending byte

const (
	endsClean ending = iota + 1 // nothing of it is visible to clients any more
	// its lease has expired, and what has a hold-down time may be visible for that long
	endsExpired
	// its process is dead, and its guarded set has been removed from the kernel
	endsByDeathNotice
	// its process is gone, or said to be, and its kernel acts until the lease would have expired
	endsUnconfirmed
)

// entersHoldDown reports whether a claim that holds a role goes on holding it after such an end.
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

// grant makes the claim the holder's.
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
