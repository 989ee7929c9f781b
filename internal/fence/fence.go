// Package fence has the kernel itself keep this machine from answering for a floating address without a lease, to the
// millisecond, and whatever becomes of the program: its process may be stopped (SIGSTOP), frozen (cgroup freezer, docker pause), stuck or dead.
//
// It is an nftables table of family netdev, one of each program, with a chain at the ingress and one at the egress of each
// interface that an address is guarded on. Sets in it hold what may pass, and the elements of these sets have timeouts in the kernel: a program that
// stands still does not refresh them, and the address falls silent. netdev and no other family, since it sees ARP and IPv6 neighbour discovery as well as
// IP, and since its egress sees what AF_PACKET sockets send: the stale gratuitous ARP of a program that thaws.
//
// A frame is held to concern a guarded address A on the interface I if it enters by I, and
//
//   - is ARP with A as target, unless A is its sender as well: the announcement of another owner, which the neighbour cache of this machine should learn;
//   - is IP to A, or an ICMPv6 neighbour solicitation for A, to the solicited-node group or not, probes for duplicates included;
//
// or leaves by I, and is ARP with A as sender, IP from A, or an ICMPv6 neighbour advertisement for A. What this machine sends to A, and gets from A,
// when another machine owns it, passes.
//
// A timeout counts in the kernel's ticks (4 ms at CONFIG_HZ=250), and is cut to whole ones: what has a limit ends up to two ticks and a millisecond early, and
// does not end late. It ends with the monotonic clock. Both stand still while a virtual machine is paused by a hypervisor that hides the pause from its guest: such a
// machine answers nothing while it is paused, and then for what was left of its lease.
//
// Since Linux 6.16 a chain belongs to the name of an interface: one that is renamed while it has the address is not guarded until Guard or Restore. (Before, the chain
// goes with the interface.) Transactions of nftables follow one another in a network namespace: while another program commits a large one, Extend waits,
// and should that last for what is left of the lease, everything guarded is closed.
//
// What is not looked at: frames that an XDP program or a tc ingress program takes or redirects before nftables sees them (Cilium does);
// frames of AF_PACKET sockets with PACKET_QDISC_BYPASS, which pass by the egress hook; ARP on links whose hardware addresses are not six bytes
// long; what is in tunnels; frames with two VLAN tags, and frames with one sent by AF_PACKET sockets. A received frame with one VLAN tag is treated as one without:
// an address guarded on eth0 is guarded from eth0.5 too. IPv6 extension headers are walked by the kernel in search of TCP and ICMPv6; a fragment but
// the first has neither, and is judged by its addresses alone. A router that forwards for A in at I and out at I again will find that it does not. And only interfaces that
// an address is guarded on are watched: Linux answers ARP for any of its addresses on any interface, unless arp_ignore says otherwise.
package fence

import "errors"

// ErrUnsupported says that the kernel or the rights of the process do not suffice. The error that wraps it says what is missing; if that is a
// right, it wraps os.ErrPermission too.
var ErrUnsupported = errors.New("the kernel cannot guard addresses by nftables")

// ErrTampered says that the table is no longer as it was made: somebody has removed or changed it, or an interface has gone, has come back or has another name.
// Nothing may be guarded any more. Restore mends it.
var ErrTampered = errors.New("the nftables table is not as it was made")

// ErrNotGuarded says that Set was asked for an address that Guard was not.
var ErrNotGuarded = errors.New("the address is not guarded")

// State is what may pass for an address while the lease lasts. Without the lease, every guarded address is Closed.
type State int

const (
	// Closed lets nothing pass for the address.
	Closed State = iota
	// Serving lets all pass.
	Serving
	// Quiet is as Serving, but new TCP connections are held back: segments to the address with SYN and without ACK are dropped. AF_PACKET sockets see them still,
	// since they look before the hook. New flows of other protocols, QUIC for one, look as those under way, and pass.
	Quiet
	// Muted is as Quiet, and neither ARP nor neighbour discovery is answered for the address, or sent from it: what is under way is still taken. The kernel may
	// want to ask for a neighbour's hardware address with the muted address as sender, and that is dropped too, lest the neighbour learns the wrong owner; with
	// the sysctl arp_announce=2 it asks in another name.
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

// tablePrefix begins the name of each table.
const tablePrefix = "flotilla-"

// maxName is the longest name of a program; with what precedes it, it fits where nft shows it.
const maxName = 64

// tableName returns the table of the program of that name.
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
