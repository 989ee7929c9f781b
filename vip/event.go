package vip

import (
	"net/netip"
	"time"
)

// Kind is the kind of an Event.
type Kind string

// The kinds of events.
const (
	Bound     Kind = "bound"     // the addresses are here and have been announced
	Moved     Kind = "moved"     // a planned move took them to another node
	Lost      Kind = "lost"      // they were removed because the lease was about to end
	Kept      Kind = "kept"      // the lease is over and they stay, as Config.Quorum says
	Mended    Kind = "mended"    // somebody had changed something about them, and it was repaired
	Conflict  Kind = "conflict"  // another machine claims one of them: see ConflictError
	Unusable  Kind = "unusable"  // this node does not compete: not ready, or no usable interface
	Competing Kind = "competing" // this node competes
	Failed    Kind = "failed"    // something went wrong; it is tried again when it may succeed
)

// Event is something that has happened to the addresses of one Run on this node.
type Event struct {
	Kind  Kind      // what has happened
	Time  time.Time // when, by this machine's clock
	Name  string    // of the role
	Addrs []netip.Prefix
	Fence uint64        // of the tenure, if there is one
	Held  time.Duration // of Moved and Lost: for how long the addresses were here
	Took  time.Duration // Bound: from grant to announcement; Moved: from request to release
	Err   error         // the cause
}
