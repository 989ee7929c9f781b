package l2

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	v4 = "10.73.0.100"
	v6 = "fd73::100"
)

func self() mac    { return mac{2, 0, 0, 0, 0, 1} }
func foreign() mac { return mac{2, 0, 0, 0, 0, 2} }

// unhex reads hexadecimal digits with spaces.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFrames(t *testing.T) {
	for _, tc := range []struct {
		name string
		got  []byte
		want string
	}{
		{"announcement, IPv4", announcement(self(), netip.MustParseAddr(v4)), `
			ffffffffffff 020000000001 0806
			0001 0800 06 04 0001 020000000001 0a490064 000000000000 0a490064`},
		{"probe, IPv4", probe(self(), netip.MustParseAddr(v4)), `
			ffffffffffff 020000000001 0806
			0001 0800 06 04 0001 020000000001 00000000 000000000000 0a490064`},
		{"announcement, IPv6", announcement(self(), netip.MustParseAddr(v6)), `
			333300000001 020000000001 86dd
			60000000 0020 3a ff fd730000000000000000000000000100 ff020000000000000000000000000001
			88 00 57b7 20000000 fd730000000000000000000000000100 02 01 020000000001`},
		{"probe, IPv6", probe(self(), netip.MustParseAddr(v6)), `
			3333ff000100 020000000001 86dd
			60000000 0018 3a ff 00000000000000000000000000000000 ff0200000000000000000001ff000100
			87 00 7b34 00000000 fd730000000000000000000000000100`},
		{"question, IPv4", question(self(), netip.MustParseAddr(v4), netip.MustParseAddr("10.73.0.9")), `
			ffffffffffff 020000000001 0806
			0001 0800 06 04 0001 020000000001 0a490064 000000000000 0a490009`},
		{"question, IPv6", question(self(), netip.MustParseAddr(v6), netip.MustParseAddr("fd73::9")), `
			3333ff000009 020000000001 86dd
			60000000 0020 3a ff fd730000000000000000000000000100 ff0200000000000000000001ff000009
			87 00 7ba4 00000000 fd730000000000000000000000000009 01 01 020000000001`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(unhex(t, tc.want), tc.got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// synFrame returns a SYN as a client sends it, with a correct checksum.
func synFrame(dst netip.Addr, port uint16, options int) []byte {
	src, typ, header := netip.MustParseAddr("10.73.0.9"), uint16(etherIPv4), ipv4Len+options
	if dst.Is6() {
		src, typ, header = netip.MustParseAddr("fd73::9"), etherIPv6, ipv6Len
	}
	b := etherFrame(self(), mac{2, 0, 0, 0, 0, 9}, typ, header+tcpLen)
	be, ip, tcp := binary.BigEndian, b[offIP:], b[offIP+header:]
	if dst.Is4() {
		ip[0], ip[8], ip[9] = 4<<4|byte(header/4), 64, protoTCP
		be.PutUint16(ip[2:], uint16(header+tcpLen))
		be.PutUint16(ip[6:], 0x4000) // do not fragment
		copy(ip[12:], src.AsSlice())
		copy(ip[16:], dst.AsSlice())
		for i := ipv4Len; i < header; i++ {
			ip[i] = 1 // no operation
		}
		be.PutUint16(ip[10:], ^fold(sum(ip[:header], 0)))
	} else {
		ip[0], ip[6], ip[7] = 6<<4, protoTCP, 64
		be.PutUint16(ip[4:], tcpLen)
		copy(ip[8:], src.AsSlice())
		copy(ip[24:], dst.AsSlice())
	}
	be.PutUint16(tcp, port)
	be.PutUint16(tcp[2:], 443)
	be.PutUint32(tcp[4:], 7)
	tcp[12], tcp[offTCPFlags] = tcpLen/4<<4, flagS
	be.PutUint16(tcp[offTCPSum:], ^fold(sum(tcp, pseudo(src, dst, protoTCP, tcpLen))))
	return b
}

// change returns a frame with one byte replaced. A correct checksum of neighbour discovery stays
// correct.
func change(frame []byte, at int, to byte) []byte {
	b := slices.Clone(frame)
	b[at] = to
	if b[offEtherType] == 0x86 && b[offIPv6Next] == protoICMPv6 && at > offIPv6Hops {
		m := b[offIPv6Payload:]
		m[2], m[3] = 0, 0
		src, dst := netip.AddrFrom16([16]byte(b[22:38])), netip.AddrFrom16([16]byte(b[38:54]))
		binary.BigEndian.PutUint16(m[2:], ^fold(sum(m, pseudo(src, dst, protoICMPv6, len(m)))))
	}
	return b
}

// Offsets in the frames of the tests.
const (
	atARPOp, atARPSender   = offARP + 7, offARP + 8
	atTCP4, atTCP6         = offIP + ipv4Len, offIP + ipv6Len
	atND, atNDOption       = offIPv6Payload, offIPv6Payload + ndLen
	atIPv4Total, atIPv6Len = offIP + 3, offIP + 5
)

func TestHear(t *testing.T) {
	a4, a6 := netip.MustParseAddr(v4), netip.MustParseAddr(v6)
	arp, na, ns := announcement(foreign(), a4), announcement(foreign(), a6), probe(foreign(), a6)
	syn4, syn6 := synFrame(a4, 1000, 0), synFrame(a6, 1000, 0)
	noOption := ndFrame(foreign(), a6, allNodes(), a6, append([]byte{typeNA, 0, 0, 0, flagOverride}, make([]byte, ndLen-5)...))
	for _, tc := range []struct {
		name    string
		frame   []byte
		kind    kind
		addr    netip.Addr
		padding int
	}{
		{"nothing", nil, other, netip.Addr{}, 0},
		{"announcement, IPv4", arp, claimed, a4, 0},
		{"ARP reply", change(arp, atARPOp, arpReply), claimed, a4, 0},
		{"reverse ARP", change(arp, atARPOp, 3), other, netip.Addr{}, 0},
		{"ARP of another hardware", change(arp, offARP+1, 6), other, netip.Addr{}, 0},
		{"ARP of another protocol", change(arp, offARP+3, 1), other, netip.Addr{}, 0},
		{"ARP with long addresses", change(arp, offARP+4, 8), other, netip.Addr{}, 0},
		{"ARP from a group", change(arp, atARPSender, 3), other, netip.Addr{}, 0},
		{"ARP, short", arp[:len(arp)-1], other, netip.Addr{}, 0},
		{"probe, IPv4", probe(foreign(), a4), probed, a4, 0},
		{"answer to a probe", change(probe(foreign(), a4), atARPOp, arpReply), other, netip.Addr{}, 0},
		{"announcement, IPv6", na, claimed, a6, 0},
		{"NA that passed a router", change(na, offIPv6Hops, 254), other, netip.Addr{}, 0},
		{"NA with a code", change(na, atND+1, 1), other, netip.Addr{}, 0},
		{"NA, damaged", append(slices.Clone(na[:len(na)-1]), 0xff), other, netip.Addr{}, 0},
		{"NA of a group", change(na, atND+8, 0xff), other, netip.Addr{}, 0},
		{"NA with an empty option", change(na, atNDOption+1, 0), other, netip.Addr{}, 0},
		{"NA with a long option", change(na, atNDOption+1, 2), other, netip.Addr{}, 0},
		{"NA with another option", change(na, atNDOption, 14), claimed, a6, 0},
		{"NA at a group's address", change(na, atNDOption+2, 3), other, netip.Addr{}, 0},
		{"NA without option", noOption, claimed, a6, 0},
		{"NA, short", na[:len(na)-1], other, netip.Addr{}, 0},
		{"probe, IPv6", ns, probed, a6, 0},
		{"question for an address", change(ns, offIP+8, 0xfd), other, netip.Addr{}, 0},
		{"probe to the wrong group", change(ns, offIPv6Dst+15, 1), other, netip.Addr{}, 0},
		{"other ICMPv6", change(ns, atND, 128), other, netip.Addr{}, 0},
		{"SYN, IPv4", syn4, attempt, a4, 0},
		{"SYN, IPv4, padded", append(slices.Clone(syn4), 0, 0, 0, 0, 0, 0), attempt, a4, 6},
		{"SYN, IPv4, options", synFrame(a4, 1000, 8), attempt, a4, 0},
		{"SYN, IPv4, more fragments", change(syn4, offIPv4Fragment, 0x20), other, netip.Addr{}, 0},
		{"SYN, IPv4, later fragment", change(syn4, offIPv4Fragment+1, 1), other, netip.Addr{}, 0},
		{"SYN, IPv4, of version 5", change(syn4, offIP, 0x55), other, netip.Addr{}, 0},
		{"SYN, IPv4, header too short", change(syn4, offIP, 0x44), other, netip.Addr{}, 0},
		{"SYN, IPv4, header too long", change(syn4, offIP, 0x4f), other, netip.Addr{}, 0},
		{"SYN, IPv4, packet shorter than its header", change(syn4, atIPv4Total, 19), other, netip.Addr{}, 0},
		{"SYN, IPv4, packet longer than the frame", change(syn4, atIPv4Total, 41), other, netip.Addr{}, 0},
		{"UDP", change(syn4, offIPv4Proto, 17), other, netip.Addr{}, 0},
		{"SYN, ACK", change(syn4, atTCP4+offTCPFlags, flagS|flagA), other, netip.Addr{}, 0},
		{"SYN, RST", change(syn4, atTCP4+offTCPFlags, flagS|flagRST), other, netip.Addr{}, 0},
		{"SYN, ECE, CWR", change(syn4, atTCP4+offTCPFlags, flagS|0xc0), attempt, a4, 0},
		{"ACK", change(syn4, atTCP4+offTCPFlags, flagA), other, netip.Addr{}, 0},
		{"SYN, header of TCP too short", change(syn4, atTCP4+12, 0x40), other, netip.Addr{}, 0},
		{"SYN, header of TCP too long", change(syn4, atTCP4+12, 0x60), other, netip.Addr{}, 0},
		{"SYN, IPv6", syn6, attempt, a6, 0},
		{"SYN, IPv6, too long", change(syn6, atIPv6Len, 21), other, netip.Addr{}, 0},
		{"SYN, IPv6, short", change(syn6, atIPv6Len, 19), other, netip.Addr{}, 0},
		{"SYN, IPv6, extension header", change(syn6, offIPv6Next, 60), other, netip.Addr{}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := parse(tc.frame)
			if h.kind != tc.kind || h.addr != tc.addr && tc.kind != other {
				t.Errorf("%v of %v, want %v of %v", h.kind, h.addr, tc.kind, tc.addr)
			}
			if (h.kind == claimed || h.kind == probed) && h.mac != foreign() {
				t.Errorf("from %v, want %v", h.mac, foreign())
			}
			if h.kind == attempt && (h.key.src.Port() != 1000 || h.key.dst != netip.AddrPortFrom(tc.addr, 443) || h.key.seq != 7) {
				t.Errorf("read as %+v", h.key)
			}
			if want := tc.frame[min(len(tc.frame), etherLen):]; h.kind == attempt && !bytes.Equal(h.packet, want[:len(want)-tc.padding]) {
				t.Errorf("the packet is %x, want %x", h.packet, want[:len(want)-tc.padding])
			}
		})
	}
}

func TestComplete(t *testing.T) {
	for _, addr := range []string{v4, v6} {
		dst := netip.MustParseAddr(addr)
		for _, options := range []int{0, 12} {
			want := synFrame(dst, 1000, options)[offIP:]
			tcp := len(want) - tcpLen
			h := parse(synFrame(dst, 1000, options))
			for _, tc := range []struct {
				name string
				sum  uint16
				err  error
			}{
				{"right", binary.BigEndian.Uint16(want[tcp+offTCPSum:]), nil},
				{"left to a network card", fold(pseudo(h.key.src.Addr(), dst, protoTCP, tcpLen)), nil},
				{"left empty", 0, nil},
				{"wrong", 0x1234, errDamaged},
			} {
				t.Run(addr+"/"+tc.name, func(t *testing.T) {
					packet := slices.Clone(want)
					binary.BigEndian.PutUint16(packet[tcp+offTCPSum:], tc.sum)
					err := complete(packet)
					if !errors.Is(err, tc.err) {
						t.Fatalf("%v, want %v", err, tc.err)
					}
					if err == nil && !bytes.Equal(packet, want) {
						t.Errorf("%x, want %x", packet, want)
					}
				})
			}
		}
	}
	t.Run("header of IPv4 damaged", func(t *testing.T) {
		packet := synFrame(netip.MustParseAddr(v4), 1000, 0)[offIP:]
		packet[8]-- // hops
		if err := complete(packet); !errors.Is(err, errDamaged) {
			t.Error(err)
		}
	})
}

func TestPlain(t *testing.T) {
	for _, tc := range []struct {
		addr, want string // empty: refused
	}{
		{v4, v4}, {v6, v6}, {"::ffff:10.73.0.100", v4}, {"fe80::1%eth0", "fe80::1"},
		{"0.0.0.0", ""}, {"::", ""}, {"224.0.0.1", ""}, {"ff02::1", ""}, {"255.255.255.255", ""}, {"127.0.0.1", ""}, {"::1", ""},
	} {
		got, err := plain(netip.MustParseAddr(tc.addr))
		if tc.want == "" && err == nil || tc.want != "" && (err != nil || got.String() != tc.want) {
			t.Errorf("%s: %v, %v", tc.addr, got, err)
		}
	}
	if _, err := plain(netip.Addr{}); err == nil || !strings.Contains(err.Error(), "is not an address that a node can have on a link") {
		t.Errorf("no address is taken for one: %v", err)
	}
}

// seeds are frames of all kinds.
func seeds() [][]byte {
	a4, a6 := netip.MustParseAddr(v4), netip.MustParseAddr(v6)
	return [][]byte{
		announcement(foreign(), a4), announcement(foreign(), a6), probe(foreign(), a4), probe(foreign(), a6),
		synFrame(a4, 1, 0), synFrame(a4, 1, 40), synFrame(a6, 1, 0), synFrame(netip.MustParseAddr("10.73.0.1"), 1, 0),
	}
}

// No frame makes parse panic. What parse accepts is complete enough for its users.
func FuzzHear(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		switch h := parse(frame); h.kind {
		case claimed, probed:
			if !h.mac.unicast() || !h.addr.IsValid() || h.addr.IsMulticast() && h.addr.Is6() {
				t.Errorf("%+v", h)
			}
		case attempt:
			packet := slices.Clone(h.packet)
			if err := complete(packet); err != nil {
				return
			}
			again := parse(append(slices.Clone(frame[:etherLen]), packet...))
			if again.kind != attempt || again.key != h.key {
				t.Errorf("completed it is read as %+v, before as %+v", again, h)
			}
			if err := complete(packet); err != nil {
				t.Errorf("completed it is damaged")
			}
		}
	})
}
