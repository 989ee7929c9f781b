package hold

import (
	"net/netip"

	"github.com/flotilla-ha/flotilla/event"
)

// Addresses are the facts about the floating addresses of one role on this node.
type Addresses struct {
	// Role is the name of the role.
	Role string

	// Addrs are the addresses, with the prefix length of their subnet.
	Addrs []netip.Prefix

	// Bound says that they are at this node now.
	Bound bool

	// Usable says that this node has them or competes for them. It does not while it is not ready, or
	// cannot put them in place, or pauses after a failure.
	Usable bool

	// Conflict names the other machine that claims one of them, such as by its hardware address. Empty
	// means that none does.
	Conflict string

	// Gone says that vip.Run has ended, so that there are no such addresses on this node any more.
	Gone bool
}

// Observer is a cluster that wants to know what happens to floating addresses on this node. Package
// vip calls it if its Holder is one. *flotilla.Node is.
type Observer interface {
	// ObserveAddresses is called when vip.Run begins, whenever something happens to its addresses or
	// the facts change, and when it ends. The calls of one Run come one at a time. They must not
	// block.
	//
	// The event has Kind, Subject, Text, Cause and Severity. An empty Kind means that only the facts
	// have changed.
	ObserveAddresses(a Addresses, e event.Event)
}
