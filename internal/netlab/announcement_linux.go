package netlab

import (
	"net/netip"
	"time"

	"github.com/flotilla-ha/flotilla/internal/netlab/frame"
)

// Announcement is a claim of an address that nobody asked for.
type Announcement struct {
	// At is the time when a client received it.
	At time.Time
	// Client is the name of the client.
	Client string
	// Addr is the address.
	Addr netip.Addr
	// Owner is the node that claims the address, or an unknown hardware address.
	Owner string
	// Form is an ARP request, an ARP reply, or a neighbour advertisement.
	Form frame.Form
	// Override is true if a neighbour advertisement replaces what caches have.
	Override bool
	// Target is true if a neighbour advertisement contains the hardware address itself.
	Target bool
}
