// Package l2 is what floating addresses need of an Ethernet link: announcements that move neighbours' caches, probes for a foreign owner, and
// the relay of connection attempts while an address moves from one node to another.
//
// Frames are made and read by hand, and travel by packet sockets (packet(7)), so everything here needs Linux and CAP_NET_RAW; elsewhere
// Open says so. The forms of the announcements are those that were measured to work on Linux neighbours at once: a gratuitous ARP
// request (RFC 5227), and an unsolicited neighbour advertisement (RFC 4861) with the override flag and the target link-layer address.
//
// What a tap on the interface cannot do:
//   - Frames with an 802.1Q tag belong to the VLAN's own interface, and are seen there, without the tag. A Link of the interface below ignores
//     them. A tag within a tag is seen by neither.
//   - Frames that an XDP program takes, or hardware that hands flows past the kernel, are not seen at all.
//   - An interface that is a port of a bridge or bond sees frames as they come, but the address is not there: open the bridge or the bond.
package l2
