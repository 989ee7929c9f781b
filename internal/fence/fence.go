package fence

import "errors"

// ErrUnsupported means that the kernel or the rights of the process do not suffice. The error that
// wraps it says what is missing. If a right is missing it wraps os.ErrPermission too.
var ErrUnsupported = errors.New("the kernel cannot guard addresses by nftables")

// ErrTampered means that the table is not as it was made any more. Somebody has removed or changed
// it, or an interface has gone, has come back, or has another name. Perhaps nothing is guarded any
// more. Restore repairs it.
var ErrTampered = errors.New("the nftables table is not as it was made")

// ErrNotGuarded means that an address is not guarded: Guard was not called for it.
var ErrNotGuarded = errors.New("the address is not guarded")

// State is what may pass for an address while the lease lasts. Without a lease, every guarded
// address is Closed.
type State int

const (
	// Closed lets nothing pass for the address.
	Closed State = iota
	// Serving lets everything pass.
	Serving
	// Quiet is Serving without new TCP connections: segments to the address with SYN and without
	// ACK are dropped. AF_PACKET sockets still see them, before the hook. New flows of other
	// protocols, such as QUIC, cannot be told from existing ones, and pass.
	Quiet
	// Muted is Quiet without ARP and neighbour discovery for the address: existing connections go
	// on, and nobody learns any more that the address is here. A question of the kernel for a
	// neighbour's hardware address, with the muted address as sender, is dropped too: the neighbour
	// would learn the wrong owner. With the sysctl arp_announce=2 the kernel asks with another
	// sender.
	Muted
)

// String returns the name of the state.
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Serving:
		return "serving"
	case Quiet:
		return "quiet"
	case Muted:
		return "muted"
	}
	return "unknown"
}

// tablePrefix is how the name of each table begins.
const tablePrefix = "flotilla-"

// maxName is the longest name of a program. With the prefix it fits where nft shows it.
const maxName = 64

// tableName returns the name of the table of a program.
func tableName(name string) (string, error) {
	if name == "" || len(name) > maxName {
		return "", errors.New("the name of a fence has 1 to 64 characters")
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.' {
			return "", errors.New("the name of a fence has letters, digits, hyphens, underscores and dots only")
		}
	}
	return tablePrefix + name, nil
}
