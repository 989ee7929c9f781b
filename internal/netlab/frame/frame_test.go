package frame

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseClaim(t *testing.T) {
	node, tag := MAC{2, 0, 0, 0, 0, 1}, MAC{2, 0x5a, 0, 0, 0, 7}
	v4, v6 := netip.MustParseAddr("10.77.0.50"), netip.MustParseAddr("fd77::50")
	answer4 := Gratuitous(node, v4, GratuitousReply)
	copy(answer4[0:], tag[:])
	copy(answer4[32:], tag[:])
	copy(answer4[38:], []byte{10, 77, 0, 201})
	answer6 := Unsolicited(node, v6, 0x60, true)
	copy(answer6, tag[:])
	for _, test := range []struct {
		name  string
		frame []byte
		want  Claim
		ok    bool
	}{
		{"ARP reply", answer4, Claim{Addr: v4, MAC: node, Asked: true, To: tag}, true},
		{"gratuitous request", Question(node, node, v4, v4), Claim{Addr: v4, MAC: node, Form: GratuitousRequest}, true},
		{"gratuitous reply", Gratuitous(node, v4, GratuitousReply), Claim{Addr: v4, MAC: node, Form: GratuitousReply}, true},
		{"ARP request", Question(node, tag, netip.MustParseAddr("10.77.0.201"), v4), Claim{}, false},
		{"solicited advertisement", answer6,
			Claim{Addr: v6, MAC: node, Asked: true, To: tag, Form: Advertisement, Override: true, Target: true}, true},
		{"unsolicited advertisement", Unsolicited(node, v6, 0x20, true),
			Claim{Addr: v6, MAC: node, To: MAC{0x33, 0x33, 0, 0, 0, 1}, Form: Advertisement, Override: true, Target: true}, true},
		{"bare advertisement", Unsolicited(node, v6, 0, false),
			Claim{Addr: v6, MAC: node, To: MAC{0x33, 0x33, 0, 0, 0, 1}, Form: Advertisement}, true},
		{"solicitation", Question(node, tag, netip.MustParseAddr("fd77::201"), v6), Claim{}, false},
		{"another protocol", Ethernet(node, tag, 0x88b5), Claim{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := ParseClaim(test.frame)
			diff := cmp.Diff(test.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
			if diff != "" || ok != test.ok {
				t.Errorf("it is a claim: %t, want %t (-want +got):\n%s", ok, test.ok, diff)
			}
			for n := range test.frame {
				ParseClaim(test.frame[:n]) // does not panic
			}
		})
	}
}

func FuzzParseClaim(f *testing.F) {
	node := MAC{2, 0, 0, 0, 0, 1}
	v4, v6 := netip.MustParseAddr("10.77.0.50"), netip.MustParseAddr("fd77::50")
	for _, frame := range [][]byte{
		Question(node, node, v4, v4), Question(node, node, v6, v6), Unsolicited(node, v6, 0x60, true),
	} {
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if c, ok := ParseClaim(frame); ok && !c.Addr.IsValid() {
			t.Errorf("a claim of nothing: %+v", c)
		}
	})
}
