package netlab

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// asReply makes an ARP reply to everybody of a request.
func asReply(f []byte) []byte {
	f[21] = arpReply
	return f
}

// advertisement returns an unsolicited neighbour advertisement to all nodes.
func advertisement(from hardware, addr netip.Addr, flags byte, target bool) []byte {
	a := addr.As16()
	all := [16]byte{0: 0xff, 1: 0x02, 15: 1}
	body := append([]byte{icmpAdvertisement, 0, 0, 0, flags, 0, 0, 0}, a[:]...)
	if target {
		body = append(append(body, 2, 1), from[:]...)
	}
	binary.BigEndian.PutUint16(body[2:], checksum(a, all, body))
	f := ethernet(hardware{0x33, 0x33, 0, 0, 0, 1}, from, etherIPv6)
	f = append(f, 0x60, 0, 0, 0, 0, byte(len(body)), 58, 255)
	f = append(append(f, a[:]...), all[:]...)
	return append(f, body...)
}

func TestParseClaim(t *testing.T) {
	node, tag := hardware{2, 0, 0, 0, 0, 1}, hardware{2, 0x5a, 0, 0, 0, 7}
	v4, v6 := netip.MustParseAddr("10.77.0.50"), netip.MustParseAddr("fd77::50")
	answer4 := asReply(question(node, node, v4, netip.MustParseAddr("10.77.0.201")))
	copy(answer4[0:], tag[:])
	copy(answer4[32:], tag[:])
	answer6 := advertisement(node, v6, 0x60, true)
	copy(answer6, tag[:])
	for _, test := range []struct {
		name  string
		frame []byte
		want  claim
		ok    bool
	}{
		{"ARP reply", answer4, claim{addr: v4, mac: node, asked: true, to: tag}, true},
		{"gratuitous request", question(node, node, v4, v4), claim{addr: v4, mac: node, form: GratuitousRequest}, true},
		{"gratuitous reply", asReply(question(node, node, v4, v4)), claim{addr: v4, mac: node, form: GratuitousReply}, true},
		{"ARP request", question(node, tag, netip.MustParseAddr("10.77.0.201"), v4), claim{}, false},
		{"solicited advertisement", answer6, claim{addr: v6, mac: node, asked: true, to: tag, form: Advertisement, override: true, target: true}, true},
		{"unsolicited advertisement", advertisement(node, v6, 0x20, true),
			claim{addr: v6, mac: node, to: hardware{0x33, 0x33, 0, 0, 0, 1}, form: Advertisement, override: true, target: true}, true},
		{"bare advertisement", advertisement(node, v6, 0, false),
			claim{addr: v6, mac: node, to: hardware{0x33, 0x33, 0, 0, 0, 1}, form: Advertisement}, true},
		{"solicitation", question(node, tag, netip.MustParseAddr("fd77::201"), v6), claim{}, false},
		{"another protocol", ethernet(node, tag, 0x88b5), claim{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := parseClaim(test.frame)
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(claim{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || ok != test.ok {
				t.Errorf("%t, %s", ok, diff)
			}
			for n := range test.frame {
				parseClaim(test.frame[:n]) // and does not panic
			}
		})
	}
}

func FuzzParseClaim(f *testing.F) {
	node := hardware{2, 0, 0, 0, 0, 1}
	v4, v6 := netip.MustParseAddr("10.77.0.50"), netip.MustParseAddr("fd77::50")
	for _, frame := range [][]byte{question(node, node, v4, v4), question(node, node, v6, v6), advertisement(node, v6, 0x60, true)} {
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if c, ok := parseClaim(frame); ok && !c.addr.IsValid() {
			t.Errorf("a claim of nothing: %+v", c)
		}
	})
}
