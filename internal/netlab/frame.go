package netlab

import (
	"encoding/binary"
	"net/netip"
)

// Frames of ARP (RFC 826) and of neighbour discovery (RFC 4861), as far as the instruments need them.

const (
	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	arpRequest = 1
	arpReply   = 2

	icmpSolicitation  = 135
	icmpAdvertisement = 136
)

// hardware is a MAC that can be compared.
type hardware [6]byte

// question returns the frame that asks everybody who has an address. The frame comes from the sender's hardware address, and asks for
// the answer to go to another.
func question(sender, answerTo hardware, asker, target netip.Addr) []byte {
	if target.Is4() {
		f := ethernet(hardware{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, sender, etherARP)
		f = append(f, 0, 1, 8, 0, 6, 4, 0, arpRequest)
		f = append(append(f, answerTo[:]...), asker.AsSlice()...)
		return append(append(f, make([]byte, 6)...), target.AsSlice()...)
	}
	t, a := target.As16(), asker.As16()
	group := [16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]} // solicited-node, RFC 4291 2.7.1
	f := ethernet(hardware{0x33, 0x33, 0xff, t[13], t[14], t[15]}, sender, etherIPv6)
	body := append([]byte{icmpSolicitation, 0, 0, 0, 0, 0, 0, 0}, t[:]...)
	body = append(append(body, 1, 1), answerTo[:]...) // source link-layer address
	binary.BigEndian.PutUint16(body[2:], checksum(a, group, body))
	f = append(f, 0x60, 0, 0, 0, 0, byte(len(body)), 58, 255)
	f = append(append(f, a[:]...), group[:]...)
	return append(f, body...)
}

func ethernet(to, from hardware, kind uint16) []byte {
	return binary.BigEndian.AppendUint16(append(append([]byte(nil), to[:]...), from[:]...), kind)
}

// checksum is ICMPv6's.
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

// claim is a frame by which somebody says that an address is at a hardware address.
type claim struct {
	addr     netip.Addr
	mac      hardware
	asked    bool     // it answers a question
	to       hardware // where the answer goes
	form     Form
	override bool // NA: it replaces what a cache has
	target   bool // NA: it says the hardware address itself
}

// parseClaim understands ARP replies, gratuitous ARP of either form, and neighbour advertisements.
func parseClaim(f []byte) (claim, bool) {
	if len(f) < 14 {
		return claim{}, false
	}
	switch binary.BigEndian.Uint16(f[12:]) {
	case etherARP:
		return parseARP(f)
	case etherIPv6:
		return parseAdvertisement(f)
	}
	return claim{}, false
}

func parseARP(f []byte) (claim, bool) {
	if len(f) < 42 || f[21] != arpRequest && f[21] != arpReply {
		return claim{}, false
	}
	c := claim{addr: netip.AddrFrom4([4]byte(f[28:32])), mac: hardware(f[22:28]), to: hardware(f[32:38])}
	gratuitous := f[0]&1 == 1 && [4]byte(f[28:32]) == [4]byte(f[38:42])
	switch {
	case gratuitous && f[21] == arpRequest:
		c.form = GratuitousRequest
	case gratuitous:
		c.form = GratuitousReply
	case f[21] == arpReply:
		c.asked = true
	default:
		return claim{}, false
	}
	return c, true
}

func parseAdvertisement(f []byte) (claim, bool) {
	const head = 14 + 40
	if len(f) < head+24 || f[20] != 58 || f[head] != icmpAdvertisement {
		return claim{}, false
	}
	c := claim{addr: netip.AddrFrom16([16]byte(f[head+8 : head+24])), mac: hardware(f[6:12]), to: hardware(f[0:6]), form: Advertisement}
	c.asked, c.override = f[head+4]&0x40 != 0, f[head+4]&0x20 != 0
	for rest := f[head+24:]; len(rest) >= 8 && rest[1] > 0 && len(rest) >= 8*int(rest[1]); rest = rest[8*int(rest[1]):] {
		if rest[0] == 2 {
			c.mac, c.target = hardware(rest[2:8]), true
		}
	}
	return c, true
}

// Form is how somebody announces an address without being asked.
type Form int

const (
	// GratuitousRequest is an ARP request for the sender's own address.
	GratuitousRequest Form = iota + 1
	// GratuitousReply is an ARP reply to everybody.
	GratuitousReply
	// Advertisement is an unsolicited neighbour advertisement.
	Advertisement
)

// String returns its name.
func (f Form) String() string {
	return [...]string{"none", "ARP request", "ARP reply", "NA"}[f]
}
