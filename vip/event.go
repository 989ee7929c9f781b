package vip

import (
	"net/netip"
	"time"
)

// Kind is what an Event tells.
type Kind string

// The kinds of events.
const (
	Bound     Kind = "bound"     // the addresses are here, and were announced
	Moved     Kind = "moved"     // they were handed over by plan
	Lost      Kind = "lost"      // they were taken away, since the lease was about to end
	Kept      Kind = "kept"      // the lease is over, and they stay, as Quorum says
	Mended    Kind = "mended"    // others had changed something about them, and it was put right
	Conflict  Kind = "conflict"  // another machine answers for one of them, or wants it: see Config.Conflict, and ConflictError
	Unusable  Kind = "unusable"  // the node does not compete: the program is not ready, or the interface cannot be used
	Competing Kind = "competing" // it competes
	Failed    Kind = "failed"    // something went wrong, and is tried again; others are not asked for the addresses before it can go well
)

// Event is something that has happened to the addresses of one Run, on this node.
type Event struct {
	Kind  Kind      // what has happened
	Time  time.Time // when, by this machine's clock
	Name  string    // the role's
	Addrs []netip.Prefix
	Fence uint64        // of the tenure, if there is one
	Held  time.Duration // of Moved and Lost: for how long they were here
	Took  time.Duration // of Bound: from the grant to the announcement; of Moved: from the wish to the release
	Err   error         // the cause
}
