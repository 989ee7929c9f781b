package l2

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"
)

// maxProgram is how many instructions a filter may have. The kernel charges them to the socket, whose allowance is 20 KiB by default on kernels
// before 6.7 (net.core.optmem_max).
const maxProgram = 512

// guard begins every filter: it passes what was sent to us, to all or to a group, and has no VLAN tag. Not what is on its way out, nor what a
// promiscuous interface hears of the talk of others. The packet's type stays in the first scratch cell, for filter.
func guard() []bpf.Instruction {
	const packetMulticast = 2 // in linux/if_packet.h, after the host's own and broadcasts
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtVLANTag},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x0fff}, // VLAN 0 is no VLAN: the tag has a priority only
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
		bpf.RetConstant{},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.StoreScratch{Src: bpf.RegA, N: 0},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: packetMulticast, SkipTrue: 1},
		bpf.RetConstant{},
	}
}

// relayFilter passes attempts to addrs and claims of them. With more addresses than a program can hold it passes those of all
// addresses, which are still no more than ARP, neighbour advertisements and one frame of each connection.
func relayFilter(addrs []netip.Addr) []bpf.Instruction {
	if p := filter(match4(addrs), match6(addrs), true, typeNA); len(p) <= maxProgram {
		return p
	}
	pass := []bpf.Instruction{bpf.RetConstant{Val: maxFrame}}
	return filter(pass, pass, true, typeNA)
}

// probeFilter passes all claims and probes, for as long as a probe takes.
func probeFilter() []bpf.Instruction {
	pass := []bpf.Instruction{bpf.RetConstant{Val: maxFrame}}
	return filter(pass, pass, false, typeNA, typeNS)
}

// claimFilter4 passes ARP whose sender is one of addrs, or asks for one without a sender. With more addresses than a program can hold it
// passes all.
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

// claimFilter6 passes neighbour advertisements about addrs, and the solicitations for them that have no source, which are those of duplicate address
// detection: others are questions, and come often. With more addresses than a program can hold it passes all.
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

// match6 passes the frame if one of addrs is at the offset that is in the index register.
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

// filter returns the part of a program that looks at the frame: ARP, neighbour discovery messages of the given types and, if asked for, TCP segments that
// begin a connection. match4 gets ARP's sender or an attempt's destination in the accumulator, match6 the offset of an attempt's destination
// or a message's target in the index register. All conditional jumps are short ones, whatever the length of the matches.
// A load from behind the end of a frame drops it.
func filter(match4, match6 []bpf.Instruction, attempts bool, types ...uint32) []bpf.Instruction {
	arp := []bpf.Instruction{bpf.LoadAbsolute{Off: offARPSenderIP, Size: 4}}

	v4, tcp6 := []bpf.Instruction{bpf.RetConstant{}}, []bpf.Instruction{bpf.RetConstant{}}
	if attempts {
		v4 = require(nil, bpf.LoadScratch{Dst: bpf.RegA, N: 0}, 0) // sent to us alone: a SYN to a group is none
		v4 = require(v4, bpf.LoadAbsolute{Off: offIPv4Proto, Size: 1}, protoTCP)
		v4 = append(v4,
			bpf.LoadAbsolute{Off: offIPv4Fragment, Size: 2},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: fragmentBits},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
			bpf.RetConstant{},
			bpf.LoadMemShift{Off: offIP}, // the header has options, or not
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

// require appends to p that what load loads is val.
func require(p []bpf.Instruction, load bpf.Instruction, val uint32) []bpf.Instruction {
	return append(p, load, bpf.JumpIf{Cond: bpf.JumpEqual, Val: val, SkipTrue: 1}, bpf.RetConstant{})
}
