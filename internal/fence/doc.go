// Package fence makes the kernel keep this machine from answering for a floating address without a
// lease.
//
// # Guarantees
//
// When the lease ends, every guarded address falls silent, to the millisecond and whatever happens
// to the program: it may be stopped (SIGSTOP), frozen (cgroup freezer, docker pause), stuck or
// dead. It may be silent a little too early, never too late.
//
// # How it works
//
// Each program has an nftables table of family netdev. The table has a chain at the ingress and one
// at the egress of each interface on which an address is guarded. Sets in the table hold what may
// pass. The elements of these sets have timeouts in the kernel. A program that stands still does
// not renew them, so the address falls silent. The family is netdev because it sees ARP and IPv6
// neighbour discovery as well as IP, and because its egress sees frames of AF_PACKET sockets, such
// as the stale gratuitous ARP of a program that thaws.
//
// A frame that enters by interface I concerns an address A guarded on I if it is
//
//   - ARP with A as target, unless A is also the sender: that is the announcement of another owner,
//     which this machine's neighbour cache should learn;
//   - IP to A, or an ICMPv6 neighbour solicitation for A, including probes for duplicates.
//
// A frame that leaves by I concerns A if it is ARP with A as sender, IP from A, or an ICMPv6
// neighbour advertisement for A. Traffic of this machine with A passes when another machine owns A.
//
// A timeout counts in the kernel's ticks (4 ms at CONFIG_HZ=250) and is cut to whole ones: a limit
// ends up to two ticks and a millisecond early. It follows the monotonic clock. If a hypervisor
// pauses a virtual machine and hides that, both stand still: the machine answers nothing during the
// pause, and then for what was left of its lease.
//
// # Assumptions and limits
//
//   - The kernel has nftables with CONFIG_NETFILTER_INGRESS and CONFIG_NETFILTER_EGRESS (Linux
//     5.16). Open finds that out by doing it.
//   - Since Linux 6.16 a chain belongs to the name of an interface. An interface that is renamed
//     while it has the address is not guarded until Guard or Restore.
//   - Transactions of nftables are serialized in a network namespace. If another program's
//     transaction lasts for what is left of the lease, everything guarded is closed.
//   - Linux answers ARP for all of its addresses on every interface, unless arp_ignore says
//     otherwise. Only the interfaces on which an address is guarded are watched.
//   - Not seen: frames that an XDP or tc ingress program takes first (Cilium does), frames of
//     AF_PACKET sockets with PACKET_QDISC_BYPASS, ARP on links whose hardware addresses do not have
//     six bytes, the contents of tunnels, frames with two VLAN tags, and sent AF_PACKET frames with
//     one. A received frame with one VLAN tag is treated as one without: an address guarded on eth0
//     is guarded on eth0.5 too.
//   - A later IPv6 fragment has neither TCP nor ICMPv6 headers, so only its addresses count. A
//     router cannot forward for A in by I and out by I.
//
// # Files
//
// fence_linux.go has the Fence: its state and its operations. rules_linux.go describes the table,
// conn_linux.go talks to the kernel, verify_linux.go compares the table with what was made,
// probe_linux.go finds out what the kernel can do.
package fence
