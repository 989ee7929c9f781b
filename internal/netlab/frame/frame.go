// Package frame has the frames of ARP (RFC 826) and of neighbour discovery (RFC 4861) that the
// instruments of package netlab send and understand.
package frame

import (
	"encoding/binary"
	"net/netip"
)

const (
	// EtherARP is the protocol number of ARP.
	EtherARP = 0x0806
	// EtherIPv6 is the protocol number of IPv6.
	EtherIPv6 = 0x86dd

	arpRequest = 1
	arpReply   = 2

	icmpSolicitation  = 135
	icmpAdvertisement = 136
)

// MAC is a hardware address that can be compared.
type MAC [6]byte

// Question returns a broadcast frame that asks who has an address. The frame comes from the
// hardware address sender, and asks for the answer to go to the hardware address answerTo.
func Question(sender, answerTo MAC, asker, target netip.Addr) []byte {
	if target.Is4() {
		f := Ethernet(MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, sender, EtherARP)
		f = append(f, 0, 1, 8, 0, 6, 4, 0, arpRequest)
		f = append(append(f, answerTo[:]...), asker.AsSlice()...)
		return append(append(f, make([]byte, 6)...), target.AsSlice()...)
	}
	t, a := target.As16(), asker.As16()
	// The solicited-node group, RFC 4291 2.7.1.
	group := [16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]}
	f := Ethernet(MAC{0x33, 0x33, 0xff, t[13], t[14], t[15]}, sender, EtherIPv6)
	body := append([]byte{icmpSolicitation, 0, 0, 0, 0, 0, 0, 0}, t[:]...)
	body = append(append(body, 1, 1), answerTo[:]...) // source link-layer address
	binary.BigEndian.PutUint16(body[2:], checksum(a, group, body))
	f = append(f, 0x60, 0, 0, 0, 0, byte(len(body)), 58, 255)
	f = append(append(f, a[:]...), group[:]...)
	return append(f, body...)
}

// Ethernet returns the header of a frame.
func Ethernet(to, from MAC, kind uint16) []byte {
	return binary.BigEndian.AppendUint16(append(append([]byte(nil), to[:]...), from[:]...), kind)
}

// Gratuitous returns a broadcast ARP frame that announces an IPv4 address, as a request or a reply.
func Gratuitous(from MAC, addr netip.Addr, form Form) []byte {
	f := Question(from, from, addr, addr)
	if form == GratuitousReply {
		f[21] = arpReply
	}
	return f
}

// Unsolicited returns a neighbour advertisement to all nodes that announces an IPv6 address. The
// flags are those of RFC 4861 4.4. With target the frame contains the hardware address.
func Unsolicited(from MAC, addr netip.Addr, flags byte, target bool) []byte {
	a := addr.As16()
	all := [16]byte{0: 0xff, 1: 0x02, 15: 1}
	body := append([]byte{icmpAdvertisement, 0, 0, 0, flags, 0, 0, 0}, a[:]...)
	if target {
		body = append(append(body, 2, 1), from[:]...)
	}
	binary.BigEndian.PutUint16(body[2:], checksum(a, all, body))
	f := Ethernet(MAC{0x33, 0x33, 0, 0, 0, 1}, from, EtherIPv6)
	f = append(f, 0x60, 0, 0, 0, 0, byte(len(body)), 58, 255)
	f = append(append(f, a[:]...), all[:]...)
	return append(f, body...)
}

// checksum returns the checksum of an ICMPv6 message.
func checksum(from, to [16]byte, body []byte) uint16 {
	sum := uint32(len(body)) + 58
	for _, part := range [][]byte{from[:], to[:], body} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Claim is a frame that says which hardware address has an IP address.
type Claim struct {
	// Addr is the IP address.
	Addr netip.Addr
	// MAC is the hardware address that has it.
	MAC MAC
	// Asked is true if the frame answers a question.
	Asked bool
	// To is the destination of an answer.
	To MAC
	// Form is the kind of an announcement that nobody asked for.
	Form Form
	// Override is true if a neighbour advertisement replaces what a cache has.
	Override bool
	// Target is true if a neighbour advertisement contains the hardware address itself.
	Target bool
}

// ParseClaim reads ARP replies, gratuitous ARP of either form, and neighbour advertisements. It
// returns false for other frames.
func ParseClaim(f []byte) (Claim, bool) {
	if len(f) < 14 {
		return Claim{}, false
	}
	switch binary.BigEndian.Uint16(f[12:]) {
	case EtherARP:
		return parseARP(f)
	case EtherIPv6:
		return parseAdvertisement(f)
	}
	return Claim{}, false
}

func parseARP(f []byte) (Claim, bool) {
	if len(f) < 42 || f[21] != arpRequest && f[21] != arpReply {
		return Claim{}, false
	}
	c := Claim{Addr: netip.AddrFrom4([4]byte(f[28:32])), MAC: MAC(f[22:28]), To: MAC(f[32:38])}
	gratuitous := f[0]&1 == 1 && [4]byte(f[28:32]) == [4]byte(f[38:42])
	switch {
	case gratuitous && f[21] == arpRequest:
		c.Form = GratuitousRequest
	case gratuitous:
		c.Form = GratuitousReply
	case f[21] == arpReply:
		c.Asked = true
	default:
		return Claim{}, false
	}
	return c, true
}

func parseAdvertisement(f []byte) (Claim, bool) {
	const head = 14 + 40
	if len(f) < head+24 || f[20] != 58 || f[head] != icmpAdvertisement {
		return Claim{}, false
	}
	c := Claim{
		Addr: netip.AddrFrom16([16]byte(f[head+8 : head+24])),
		MAC:  MAC(f[6:12]),
		To:   MAC(f[0:6]),
		Form: Advertisement,
	}
	c.Asked, c.Override = f[head+4]&0x40 != 0, f[head+4]&0x20 != 0
	for rest := f[head+24:]; len(rest) >= 8 && rest[1] > 0 && len(rest) >= 8*int(rest[1]); rest = rest[8*int(rest[1]):] {
		if rest[0] == 2 {
			c.MAC, c.Target = MAC(rest[2:8]), true
		}
	}
	return c, true
}

// Form is a way to announce an address unasked.
type Form int

const (
	// GratuitousRequest is an ARP request for the sender's own address.
	GratuitousRequest Form = iota + 1
	// GratuitousReply is a broadcast ARP reply.
	GratuitousReply
	// Advertisement is an unsolicited neighbour advertisement.
	Advertisement
)

// String returns the name of the form.
func (f Form) String() string {
	return [...]string{"none", "ARP request", "ARP reply", "NA"}[f]
}
