package state

import (
	"time"

	"github.com/flotilla-ha/flotilla/event"
)

// News is something that an entry did and that operators want to know of. It is shown, never
// compared.
type News struct {
	// Kind is what has happened.
	Kind event.Kind

	// Index is the index of the entry.
	Index uint64

	// Node is the ID of the node that it happened to. Of a role it is the holder from now on, and
	// empty if there is none.
	Node string

	// Name is that node's name, if the state does not know it any more.
	Name string

	// Role is the name of the role, without its prefix. Empty: it is not about a role.
	Role string

	// From is the ID of the node that held the role before. Empty: none did.
	From string

	// Outage is how long no live node held the role, as far as the leader knows.
	Outage time.Duration

	// Unplanned says that nobody has asked for it: a node was silent, or its process died.
	Unplanned bool

	// Cause is why it happened, in words. Empty: the Kind says it.
	Cause string
}
