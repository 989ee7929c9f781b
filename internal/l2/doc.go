// Package l2 does for floating addresses what needs frames on an Ethernet link.
//
// # Purpose
//
//   - Link.Announce sends announcements that correct neighbours' caches.
//   - Link.Probe asks whether another station has an address.
//   - Listener notices stations that claim an address.
//   - Relay keeps connection attempts while an address moves, and passes them on to the next owner.
//
// # Guarantees
//
// Announcements have the forms that Linux neighbours accept at once, as measured: a gratuitous ARP
// request (RFC 5227), and an unsolicited neighbour advertisement (RFC 4861) with the override flag
// and the target link-layer address. What a Relay or a Listener keeps is bounded.
//
// # Assumptions and limits
//
// The package needs Linux and CAP_NET_RAW: frames are made and read by hand and go through packet
// sockets (packet(7)). Elsewhere Open returns an error. A socket of an interface has these limits:
//
//   - Frames with an 802.1Q tag belong to the VLAN's own interface and are seen there, without the
//     tag. A Link of the interface below ignores them. Neither sees a frame with two tags.
//   - Frames that an XDP program takes, and flows that hardware forwards, are not seen.
//   - The address is not on an interface that is a port of a bridge or bond: open the bridge or
//     bond.
//
// # Files
//
// frame.go makes and parses frames, filter.go makes the kernel's filters, socket_linux.go opens
// sockets. These know nothing of link.go, listener.go and relay.go, which use them.
package l2
