package l2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Numbers of Ethernet, ARP (RFC 826), IP, TCP, ICMPv6 and neighbour discovery (RFC 4861).
const (
	etherIPv4, etherARP, etherIPv6 = 0x0800, 0x0806, 0x86dd

	etherLen, arpLen, ipv4Len, ipv6Len, tcpLen, ndLen = 14, 28, 20, 40, 20, 24

	protoTCP, protoICMPv6 = 6, 58

	arpRequest, arpReply = 1, 2

	typeNS, typeNA  = 135, 136
	flagOverride    = 0x20
	optSourceLink   = 1
	optTargetLink   = 2
	neighbourHops   = 255 // neighbour discovery does not pass a router
	flagFIN, flagS  = 0x01, 0x02
	flagRST, flagA  = 0x04, 0x10
	flagsOfAttempt  = flagFIN | flagS | flagRST | flagA // of these, an attempt has SYN only
	fragmentBits    = 0x3fff                            // more fragments, and the offset
	maxFrame        = 10 << 10                          // bytes: a jumbo frame
	offEtherType    = 12
	offARP, offIP   = etherLen, etherLen
	offARPSenderIP  = offARP + 14
	offARPTargetIP  = offARP + 24
	offIPv4Fragment = offIP + 6
	offIPv4Proto    = offIP + 9
	offIPv4Dst      = offIP + 16
	offIPv6Next     = offIP + 6
	offIPv6Hops     = offIP + 7
	offIPv6Src      = offIP + 8
	offIPv6Dst      = offIP + 24
	offIPv6Payload  = offIP + ipv6Len
	offNDTarget     = offIPv6Payload + 8
	offTCPFlags     = 13 // in a TCP header
	offTCPSum       = 16
)

// mac is a hardware address of Ethernet.
type mac [6]byte

// unicast reports whether one station can have the address.
func (m mac) unicast() bool { return m[0]&1 == 0 && m != mac{} }

func broadcast() mac { return mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// multicast returns the hardware address of an IPv6 multicast group (RFC 2464).
func multicast(group netip.Addr) mac {
	a := group.As16()
	return mac{0x33, 0x33, a[12], a[13], a[14], a[15]}
}

func allNodes() netip.Addr { return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 1}) }

// solicited returns the solicited-node multicast address of an IPv6 address (RFC 4291).
func solicited(addr netip.Addr) netip.Addr {
	a := addr.As16()
	return netip.AddrFrom16([16]byte{0xff, 0x02, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]})
}

// plain returns addr as it appears in frames. It returns an error if a node cannot have it on a
// link.
func plain(addr netip.Addr) (netip.Addr, error) {
	a := addr.Unmap().WithZone("")
	broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == broadcast {
		return a, fmt.Errorf("%v is not an address that a node can have on a link", addr)
	}
	return a, nil
}

// announcement returns the frame that tells all stations on the link that addr is at self from now
// on.
func announcement(self mac, addr netip.Addr) []byte {
	if addr.Is4() {
		return arpFrame(self, addr, addr)
	}
	// The router flag is clear. A default router of hosts would need it.
	message := make([]byte, ndLen+8)
	message[0], message[4] = typeNA, flagOverride
	message[ndLen], message[ndLen+1] = optTargetLink, 1
	copy(message[ndLen+2:], self[:])
	return ndFrame(self, addr, allNodes(), addr, message)
}

// probe returns the frame that asks which station has addr, without claiming it.
func probe(self mac, addr netip.Addr) []byte {
	if addr.Is4() {
		return arpFrame(self, netip.IPv4Unspecified(), addr)
	}
	// Without a link-layer address, because the source is unspecified: RFC 4862, section 5.4.2.
	message := make([]byte, ndLen)
	message[0] = typeNS
	return ndFrame(self, netip.IPv6Unspecified(), solicited(addr), addr, message)
}

// question returns the frame by which the station that has from asks where addr is. Both are of the
// same family. The answer goes to from.
func question(self mac, from, addr netip.Addr) []byte {
	if addr.Is4() {
		return arpFrame(self, from, addr)
	}
	message := make([]byte, ndLen+8) // RFC 4861, section 4.3
	message[0] = typeNS
	message[ndLen], message[ndLen+1] = optSourceLink, 1
	copy(message[ndLen+2:], self[:])
	return ndFrame(self, from, solicited(addr), addr, message)
}

// arpFrame returns an ARP request to all stations.
func arpFrame(self mac, sender, target netip.Addr) []byte {
	b := etherFrame(broadcast(), self, etherARP, arpLen)
	be, arp := binary.BigEndian, b[offARP:]
	be.PutUint16(arp[0:], 1) // Ethernet
	be.PutUint16(arp[2:], etherIPv4)
	arp[4], arp[5] = 6, 4
	be.PutUint16(arp[6:], arpRequest)
	copy(arp[8:], self[:])
	copy(arp[14:], sender.AsSlice())
	copy(arp[24:], target.AsSlice()) // the target's hardware address before it is unknown: zero
	return b
}

// ndFrame returns a neighbour discovery message. It fills in the target and the checksum.
func ndFrame(self mac, src, dst, target netip.Addr, message []byte) []byte {
	b := etherFrame(multicast(dst), self, etherIPv6, ipv6Len+len(message))
	ip := b[offIP:]
	ip[0] = 6 << 4
	binary.BigEndian.PutUint16(ip[4:], uint16(len(message)))
	ip[6], ip[7] = protoICMPv6, neighbourHops
	copy(ip[8:], src.AsSlice())
	copy(ip[24:], dst.AsSlice())
	m := ip[ipv6Len:]
	copy(m, message)
	copy(m[8:], target.AsSlice())
	binary.BigEndian.PutUint16(m[2:], ^fold(sum(m, pseudo(src, dst, protoICMPv6, len(m)))))
	return b
}

func etherFrame(dst, src mac, typ uint16, payload int) []byte {
	b := make([]byte, etherLen+payload)
	copy(b, dst[:])
	copy(b[6:], src[:])
	binary.BigEndian.PutUint16(b[offEtherType:], typ)
	return b
}

// kind is the kind of a frame from the link.
type kind int

const (
	other   kind = iota
	claimed      // a station says that it has the address
	probed       // a station asks for the address in order to take it
	attempt      // a client wants a connection to the address
)

// observed is what a frame from the link means.
type observed struct {
	kind   kind
	addr   netip.Addr // the address that it is about
	mac    mac        // the station that claims or probes
	source mac        // the sender of the frame
	proxy  bool       // of a claim: it does not replace entries in neighbours' caches

	// Of attempts only.
	key    attemptKey
	packet []byte // the IP packet, a part of the frame
}

// attemptKey identifies a connection attempt. All transmissions of one SYN have the same key.
type attemptKey struct {
	src, dst netip.AddrPort
	seq      uint32
}

// parse reads a frame. A frame that is incomplete, or means nothing here, is other.
func parse(frame []byte) observed {
	if len(frame) < etherLen {
		return observed{}
	}
	var h observed
	switch b := frame[etherLen:]; binary.BigEndian.Uint16(frame[offEtherType:]) {
	case etherARP:
		h = parseARP(b)
	case etherIPv4:
		h = parseIPv4(b)
	case etherIPv6:
		h = parseIPv6(b)
	}
	h.source = mac(frame[6:12])
	if (h.kind == claimed || h.kind == probed) && h.mac == (mac{}) {
		h.mac = h.source
	}
	if (h.kind == claimed || h.kind == probed) && !h.mac.unicast() {
		return observed{}
	}
	return h
}

func parseARP(b []byte) observed {
	be := binary.BigEndian
	if len(b) < arpLen || be.Uint16(b) != 1 || be.Uint16(b[2:]) != etherIPv4 || b[4] != 6 || b[5] != 4 {
		return observed{}
	}
	op := be.Uint16(b[6:])
	sender, senderIP, targetIP := mac(b[8:14]), netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	switch {
	case !sender.unicast() || op != arpRequest && op != arpReply:
		return observed{}
	case !senderIP.IsUnspecified(): // in a question or an answer
		return observed{kind: claimed, addr: senderIP, mac: sender}
	case op == arpRequest && !targetIP.IsUnspecified():
		return observed{kind: probed, addr: targetIP, mac: sender}
	}
	return observed{}
}

func parseIPv4(b []byte) observed {
	if len(b) < ipv4Len || b[0]>>4 != 4 {
		return observed{}
	}
	be := binary.BigEndian
	header, total := int(b[0]&15)*4, int(be.Uint16(b[2:]))
	if header < ipv4Len || total < header || total > len(b) || b[9] != protoTCP || be.Uint16(b[6:])&fragmentBits != 0 {
		return observed{}
	}
	// A short frame has padding after the packet.
	return parseTCP(b[:total], header, netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])))
}

func parseIPv6(b []byte) observed {
	if len(b) < ipv6Len || b[0]>>4 != 6 {
		return observed{}
	}
	total := ipv6Len + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return observed{}
	}
	src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	switch b = b[:total]; b[6] {
	case protoTCP:
		return parseTCP(b, ipv6Len, src, dst)
	case protoICMPv6:
		if b[7] == neighbourHops {
			return parseND(b[ipv6Len:], src, dst)
		}
	}
	return observed{}
}

// parseTCP reads a packet with a SYN without ACK.
func parseTCP(packet []byte, header int, src, dst netip.Addr) observed {
	b := packet[header:]
	if len(b) < tcpLen || b[offTCPFlags]&flagsOfAttempt != flagS {
		return observed{}
	}
	if offset := int(b[12]>>4) * 4; offset < tcpLen || offset > len(b) {
		return observed{}
	}
	be := binary.BigEndian
	return observed{kind: attempt, addr: dst, packet: packet, key: attemptKey{
		src: netip.AddrPortFrom(src, be.Uint16(b)),
		dst: netip.AddrPortFrom(dst, be.Uint16(b[2:])),
		seq: be.Uint32(b[4:]),
	}}
}

// parseND reads a neighbour advertisement, or the solicitation of a station that is about to take
// an address. It makes the checks of RFC 4861, sections 7.1.1 and 7.1.2.
func parseND(b []byte, src, dst netip.Addr) observed {
	if len(b) < ndLen || b[1] != 0 || fold(sum(b, pseudo(src, dst, protoICMPv6, len(b)))) != 0xffff {
		return observed{}
	}
	h := observed{addr: netip.AddrFrom16([16]byte(b[8:24]))}
	if h.addr.IsMulticast() {
		return observed{}
	}
	for opts := b[ndLen:]; len(opts) > 0; {
		if len(opts) < 8 || opts[1] == 0 || int(opts[1])*8 > len(opts) {
			return observed{}
		}
		if opts[0] == optTargetLink && opts[1] == 1 && b[0] == typeNA {
			h.mac = mac(opts[2:8])
		}
		opts = opts[int(opts[1])*8:]
	}
	switch {
	case b[0] == typeNA:
		h.kind, h.proxy = claimed, b[4]&flagOverride == 0
	case b[0] == typeNS && src.IsUnspecified() && dst == solicited(h.addr):
		h.kind = probed
	}
	return h
}

var errDamaged = errors.New("the packet is damaged")

// complete fills in the checksum of the TCP segment in the packet of an attempt, if it is missing.
// A kernel that leaves the checksum to its network card writes the sum of the pseudo header, or
// nothing. If that card is a virtual one on the same machine, nothing ever fills the checksum in.
// Any other wrong checksum means that the packet is damaged; complete must not hide that.
func complete(packet []byte) error {
	header, src, dst := ipv6Len, netip.Addr{}, netip.Addr{}
	if packet[0]>>4 == 4 {
		header = int(packet[0]&15) * 4
		src, dst = netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
		if fold(sum(packet[:header], 0)) != 0xffff {
			return errDamaged
		}
	} else {
		src, dst = netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40]))
	}
	tcp := packet[header:]
	partial := pseudo(src, dst, protoTCP, len(tcp))
	if fold(sum(tcp, partial)) == 0xffff {
		return nil
	}
	be := binary.BigEndian
	if there := be.Uint16(tcp[offTCPSum:]); there != 0 && there != fold(partial) {
		return errDamaged
	}
	be.PutUint16(tcp[offTCPSum:], 0)
	be.PutUint16(tcp[offTCPSum:], ^fold(sum(tcp, partial)))
	return nil
}

// pseudo returns the sum of the pseudo header of TCP or ICMPv6.
func pseudo(src, dst netip.Addr, proto, length int) uint32 {
	s := uint32(proto) + uint32(length)
	return sum(dst.AsSlice(), sum(src.AsSlice(), s))
}

// sum adds b to a one's complement sum (RFC 1071). It cannot overflow with 64 KiB.
func sum(b []byte, s uint32) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
