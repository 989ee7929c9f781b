package l2

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"
)

// maxProgram is how many instructions a filter may have. The kernel charges them to the socket.
// Before Linux 6.7 a socket has 20 KiB for them by default (net.core.optmem_max).
const maxProgram = 512

// guard is the beginning of every filter. It passes frames without a VLAN tag that were sent to
// this interface, to all stations, or to a group. It drops outgoing frames, and frames between
// other stations that a promiscuous interface sees. The packet's type stays in the first scratch
// cell, for filter.
func guard() []bpf.Instruction {
	const packetMulticast = 2 // in linux/if_packet.h, after the host's own and broadcasts
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtVLANTag},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0fff}, // a tag of VLAN 0 has a priority only
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
		bpf.RetConstant{},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.StoreScratch{Src: bpf.RegA, N: 0},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: packetMulticast, SkipTrue: 1},
		bpf.RetConstant{},
	}
}

// relayFilter passes attempts to addrs, and claims of them. If there are too many addresses for a
// filter it passes those of all addresses: ARP, neighbour advertisements and one frame of each
// connection.
func relayFilter(addrs []netip.Addr) []bpf.Instruction {
	if p := filter(match4(addrs), match6(addrs), true, typeNA); len(p) <= maxProgram {
		return p
	}
	pass := []bpf.Instruction{bpf.RetConstant{Val: maxFrame}}
	return filter(pass, pass, true, typeNA)
}

// probeFilter passes all claims and probes.
func probeFilter() []bpf.Instruction {
	pass := []bpf.Instruction{bpf.RetConstant{Val: maxFrame}}
	return filter(pass, pass, false, typeNA, typeNS)
}

// claimFilter4 passes ARP from one of addrs, and ARP without a sender that asks for one of them. If
// there are too many addresses for a filter it passes all ARP.
func claimFilter4(addrs []netip.Addr) []bpf.Instruction {
	begin := require(nil, bpf.LoadAbsolute{Off: offEtherType, Size: 2}, etherARP)
	begin = append(begin,
		bpf.LoadAbsolute{Off: offARPSenderIP, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: 1},
		bpf.LoadAbsolute{Off: offARPTargetIP, Size: 4})
	if p := append(begin, match4(addrs)...); len(p) <= maxProgram {
		return p
	}
	return append(begin, bpf.RetConstant{Val: maxFrame})
}

// claimFilter6 passes neighbour advertisements of addrs, and solicitations for them without a
// source, which are those of duplicate address detection. Other solicitations are mere questions
// and frequent. If there are too many addresses for a filter it passes those of all addresses.
func claimFilter6(addrs []netip.Addr) []bpf.Instruction {
	begin := require(nil, bpf.LoadAbsolute{Off: offEtherType, Size: 2}, etherIPv6)
	begin = require(begin, bpf.LoadAbsolute{Off: offIPv6Next, Size: 1}, protoICMPv6)
	begin = require(begin, bpf.LoadAbsolute{Off: offIPv6Hops, Size: 1}, neighbourHops)
	var unspecified []bpf.Instruction
	for word := uint32(0); word < 16; word += 4 {
		unspecified = require(unspecified, bpf.LoadAbsolute{Off: offIPv6Src + word, Size: 4}, 0)
	}
	begin = append(begin,
		bpf.LoadAbsolute{Off: offIPv6Payload, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: typeNA, SkipTrue: uint8(2 + len(unspecified))},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: typeNS, SkipTrue: 1},
		bpf.RetConstant{})
	begin = append(append(begin, unspecified...), bpf.LoadConstant{Dst: bpf.RegX, Val: offNDTarget})
	if p := append(begin, match6(addrs)...); len(p) <= maxProgram {
		return p
	}
	return append(begin, bpf.RetConstant{Val: maxFrame})
}

// match4 passes the frame if the accumulator is one of addrs.
func match4(addrs []netip.Addr) []bpf.Instruction {
	var p []bpf.Instruction
	for _, addr := range addrs {
		if addr.Is4() {
			p = append(p,
				bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(addr.AsSlice()), SkipFalse: 1},
				bpf.RetConstant{Val: maxFrame})
		}
	}
	return append(p, bpf.RetConstant{})
}

// match6 passes the frame if one of addrs is at the offset in the index register.
func match6(addrs []netip.Addr) []bpf.Instruction {
	var p []bpf.Instruction
	for _, addr := range addrs {
		if !addr.Is6() {
			continue
		}
		a := addr.As16()
		for i := 0; i < 16; i += 4 {
			p = append(p,
				bpf.LoadIndirect{Off: uint32(i), Size: 4},
				bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(a[i:]), SkipFalse: uint8((12-i)/2 + 1)})
		}
		p = append(p, bpf.RetConstant{Val: maxFrame})
	}
	return append(p, bpf.RetConstant{})
}

// filter returns a filter for ARP, neighbour discovery messages of the given types and, with
// attempts, TCP segments that begin a connection. match4 gets the sender of ARP, or the destination
// of an attempt, in the accumulator. match6 gets the offset of an attempt's destination, or of a
// message's target, in the index register. All conditional jumps are short, whatever the length of
// the matches. A load from behind the end of a frame drops the frame.
func filter(match4, match6 []bpf.Instruction, attempts bool, types ...uint32) []bpf.Instruction {
	arp := []bpf.Instruction{bpf.LoadAbsolute{Off: offARPSenderIP, Size: 4}}

	v4, tcp6 := []bpf.Instruction{bpf.RetConstant{}}, []bpf.Instruction{bpf.RetConstant{}}
	if attempts {
		// Sent to this interface only: a SYN to a group is not an attempt.
		v4 = require(nil, bpf.LoadScratch{Dst: bpf.RegA, N: 0}, 0)
		v4 = require(v4, bpf.LoadAbsolute{Off: offIPv4Proto, Size: 1}, protoTCP)
		v4 = append(v4,
			bpf.LoadAbsolute{Off: offIPv4Fragment, Size: 2},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: fragmentBits},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
			bpf.RetConstant{},
			bpf.LoadMemShift{Off: offIP}, // skips the options of the header
			bpf.LoadIndirect{Off: offIP + offTCPFlags, Size: 1},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: flagsOfAttempt},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: flagS, SkipTrue: 1},
			bpf.RetConstant{},
			bpf.LoadAbsolute{Off: offIPv4Dst, Size: 4})

		tcp6 = require(nil, bpf.LoadScratch{Dst: bpf.RegA, N: 0}, 0)
		tcp6 = append(tcp6,
			bpf.LoadAbsolute{Off: offIPv6Payload + offTCPFlags, Size: 1},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: flagsOfAttempt},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: flagS, SkipTrue: 1},
			bpf.RetConstant{},
			bpf.LoadConstant{Dst: bpf.RegX, Val: offIPv6Dst})
	}

	nd := require(nil, bpf.LoadAbsolute{Off: offIPv6Next, Size: 1}, protoICMPv6)
	nd = require(nd, bpf.LoadAbsolute{Off: offIPv6Hops, Size: 1}, neighbourHops)
	nd = append(nd, bpf.LoadAbsolute{Off: offIPv6Payload, Size: 1})
	for i, typ := range types {
		nd = append(nd, bpf.JumpIf{Cond: bpf.JumpEqual, Val: typ, SkipTrue: uint8(len(types) - i)})
	}
	nd = append(nd,
		bpf.RetConstant{},
		bpf.LoadConstant{Dst: bpf.RegX, Val: offNDTarget},
		bpf.Jump{Skip: uint32(len(tcp6))})

	v6 := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offIPv6Next, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoTCP, SkipTrue: uint8(len(nd))},
	}
	v6 = append(append(v6, nd...), tcp6...)

	arp = append(arp, bpf.Jump{Skip: uint32(len(v4))})
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offEtherType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherARP, SkipFalse: 1},
		bpf.Jump{Skip: 5},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherIPv4, SkipFalse: 1},
		bpf.Jump{Skip: uint32(3 + len(arp))},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherIPv6, SkipFalse: 1},
		bpf.Jump{Skip: uint32(1 + len(arp) + len(v4) + len(match4))},
		bpf.RetConstant{},
	}
	for _, part := range [][]bpf.Instruction{arp, v4, match4, v6, match6} {
		p = append(p, part...)
	}
	return p
}

// require appends to p the condition that load loads val.
func require(p []bpf.Instruction, load bpf.Instruction, val uint32) []bpf.Instruction {
	return append(p, load, bpf.JumpIf{Cond: bpf.JumpEqual, Val: val, SkipTrue: 1}, bpf.RetConstant{})
}
