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
	optTargetLink   = 2
	neighbourHops   = 255 // of all neighbour discovery: it did not pass a router
	flagFIN, flagS  = 0x01, 0x02
	flagRST, flagA  = 0x04, 0x10
	flagsOfAttempt  = flagFIN | flagS | flagRST | flagA // of these an attempt has SYN alone
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

// multicast returns where frames to an IPv6 multicast address go (RFC 2464).
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

// plain returns addr as it stands in frames, or says why it cannot be owned by a node.
func plain(addr netip.Addr) (netip.Addr, error) {
	a := addr.Unmap().WithZone("")
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return a, fmt.Errorf("%v is not an address that a node can have on a link", addr)
	}
	return a, nil
}

// announcement returns the frame that tells everybody on the link that addr is at self from now on.
func announcement(self mac, addr netip.Addr) []byte {
	if addr.Is4() {
		return arpFrame(self, addr, addr)
	}
	// The router flag is clear. An address that hosts use as their default router would need it.
	message := make([]byte, ndLen+8)
	message[0], message[4] = typeNA, flagOverride
	message[ndLen], message[ndLen+1] = optTargetLink, 1
	copy(message[ndLen+2:], self[:])
	return ndFrame(self, addr, allNodes(), addr, message)
}

// probe returns the frame that asks whether anybody has addr, without saying that we do.
func probe(self mac, addr netip.Addr) []byte {
	if addr.Is4() {
		return arpFrame(self, netip.IPv4Unspecified(), addr)
	}
	// RFC 4862, section 5.4.2: no link-layer address, since the source is not an address.
	message := make([]byte, ndLen)
	message[0] = typeNS
	return ndFrame(self, netip.IPv6Unspecified(), solicited(addr), addr, message)
}

// arpFrame returns an ARP request to everybody.
func arpFrame(self mac, sender, target netip.Addr) []byte {
	b := etherFrame(broadcast(), self, etherARP, arpLen)
	be, arp := binary.BigEndian, b[offARP:]
	be.PutUint16(arp[0:], 1) // Ethernet
	be.PutUint16(arp[2:], etherIPv4)
	arp[4], arp[5] = 6, 4
	be.PutUint16(arp[6:], arpRequest)
	copy(arp[8:], self[:])
	copy(arp[14:], sender.AsSlice())
	copy(arp[24:], target.AsSlice()) // before it the target's hardware address, which is not known: zero
	return b
}

// ndFrame returns a message of neighbour discovery, whose target and checksum it fills in.
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

// kind is what a frame from the link means.
type kind int

const (
	other   kind = iota
	claimed      // somebody says that it has the address
	probed       // somebody asks for the address in order to take it
	attempt      // a client wants a connection to the address
)

// heard is a frame from the link that was understood.
type heard struct {
	kind   kind
	addr   netip.Addr // the address that it is about
	mac    mac        // who claims or probes
	source mac        // who sent the frame
	proxy  bool       // of a claim: it takes no neighbour's cache over

	// Of attempts.
	key    attemptKey
	packet []byte // the IP packet, within the frame that was read
}

// attemptKey tells one connection attempt from another, and has all transmissions of one SYN for the same.
type attemptKey struct {
	src, dst netip.AddrPort
	seq      uint32
}

// hear reads a frame. What is not whole, or means nothing here, is other.
func hear(frame []byte) heard {
	if len(frame) < etherLen {
		return heard{}
	}
	var h heard
	switch b := frame[etherLen:]; binary.BigEndian.Uint16(frame[offEtherType:]) {
	case etherARP:
		h = hearARP(b)
	case etherIPv4:
		h = hearIPv4(b)
	case etherIPv6:
		h = hearIPv6(b)
	}
	h.source = mac(frame[6:12])
	if (h.kind == claimed || h.kind == probed) && h.mac == (mac{}) {
		h.mac = h.source
	}
	if (h.kind == claimed || h.kind == probed) && !h.mac.unicast() {
		return heard{}
	}
	return h
}

func hearARP(b []byte) heard {
	be := binary.BigEndian
	if len(b) < arpLen || be.Uint16(b) != 1 || be.Uint16(b[2:]) != etherIPv4 || b[4] != 6 || b[5] != 4 {
		return heard{}
	}
	op := be.Uint16(b[6:])
	sender, senderIP, targetIP := mac(b[8:14]), netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	switch {
	case !sender.unicast() || op != arpRequest && op != arpReply:
		return heard{}
	case !senderIP.IsUnspecified(): // whatever is asked or answered
		return heard{kind: claimed, addr: senderIP, mac: sender}
	case op == arpRequest && !targetIP.IsUnspecified():
		return heard{kind: probed, addr: targetIP, mac: sender}
	}
	return heard{}
}

func hearIPv4(b []byte) heard {
	if len(b) < ipv4Len || b[0]>>4 != 4 {
		return heard{}
	}
	be := binary.BigEndian
	header, total := int(b[0]&15)*4, int(be.Uint16(b[2:]))
	if header < ipv4Len || total < header || total > len(b) || b[9] != protoTCP || be.Uint16(b[6:])&fragmentBits != 0 {
		return heard{}
	}
	// What follows the packet is padding of a short frame.
	return hearTCP(b[:total], header, netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])))
}

func hearIPv6(b []byte) heard {
	if len(b) < ipv6Len || b[0]>>4 != 6 {
		return heard{}
	}
	total := ipv6Len + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return heard{}
	}
	src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	switch b = b[:total]; b[6] {
	case protoTCP:
		return hearTCP(b, ipv6Len, src, dst)
	case protoICMPv6:
		if b[7] == neighbourHops {
			return hearND(b[ipv6Len:], src, dst)
		}
	}
	return heard{}
}

// hearTCP reads the packet of a SYN without ACK.
func hearTCP(packet []byte, header int, src, dst netip.Addr) heard {
	b := packet[header:]
	if len(b) < tcpLen || b[offTCPFlags]&flagsOfAttempt != flagS {
		return heard{}
	}
	if offset := int(b[12]>>4) * 4; offset < tcpLen || offset > len(b) {
		return heard{}
	}
	be := binary.BigEndian
	return heard{kind: attempt, addr: dst, packet: packet, key: attemptKey{
		src: netip.AddrPortFrom(src, be.Uint16(b)),
		dst: netip.AddrPortFrom(dst, be.Uint16(b[2:])),
		seq: be.Uint32(b[4:]),
	}}
}

// hearND reads a neighbour advertisement, or the solicitation of somebody who is about to take an address, with the checks of RFC 4861,
// sections 7.1.1 and 7.1.2.
func hearND(b []byte, src, dst netip.Addr) heard {
	if len(b) < ndLen || b[1] != 0 || fold(sum(b, pseudo(src, dst, protoICMPv6, len(b)))) != 0xffff {
		return heard{}
	}
	h := heard{addr: netip.AddrFrom16([16]byte(b[8:24]))}
	if h.addr.IsMulticast() {
		return heard{}
	}
	for opts := b[ndLen:]; len(opts) > 0; {
		if len(opts) < 8 || opts[1] == 0 || int(opts[1])*8 > len(opts) {
			return heard{}
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

// complete sees to it that the checksum of the TCP segment in an IP packet that hear has taken for an attempt is right. A kernel that leaves the sum
// to its network card writes that of the pseudo header (or nothing) in its place, and where the card is a virtual one, on the same machine as
// ours, nobody ever puts the sum there. Any other wrong sum means that the packet is damaged, and would be hidden by a right one.
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

// sum adds b to a one's complement sum (RFC 1071). 64 KiB cannot overflow it.
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
