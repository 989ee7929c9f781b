package l2

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
)

// many returns n addresses, half of them of each family. v4 and v6 are the last ones.
func many(n int) []netip.Addr {
	var addrs []netip.Addr
	for i := range n/2 - 1 {
		addrs = append(addrs,
			netip.AddrFrom4([4]byte{10, 74, byte(i >> 8), byte(i)}),
			netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x74, 14: byte(i >> 8), 15: byte(i)}))
	}
	return append(addrs, netip.MustParseAddr(v4), netip.MustParseAddr(v6))
}

func machine(t testing.TB, p []bpf.Instruction) *bpf.VM {
	t.Helper()
	vm, err := bpf.NewVM(p)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func passes(t testing.TB, vm *bpf.VM, frame []byte) bool {
	t.Helper()
	n, err := vm.Run(frame)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

func TestFilters(t *testing.T) {
	a4, a6 := netip.MustParseAddr(v4), netip.MustParseAddr(v6)
	near4, near6 := netip.MustParseAddr("10.73.0.101"), netip.MustParseAddr("fd73:0:0:1::100")
	syn4, syn6, na := synFrame(a4, 1, 0), synFrame(a6, 1, 0), announcement(foreign(), a6)
	for _, tc := range []struct {
		name         string
		frame        []byte
		relay, probe bool
		any          bool // passes if there are too many addresses for the filter
	}{
		{"nothing", nil, false, false, false},
		{"announcement, IPv4", announcement(foreign(), a4), true, true, true},
		{"announcement of another address, IPv4", announcement(foreign(), near4), false, true, true},
		{"probe, IPv4", probe(foreign(), a4), false, true, true},
		{"announcement, IPv6", na, true, true, true},
		{"announcement of another address, IPv6", announcement(foreign(), near6), false, true, true},
		{"NA that passed a router", change(na, offIPv6Hops, 64), false, false, false},
		{"probe, IPv6", probe(foreign(), a6), false, true, false},
		{"echo request", change(na, atND, 128), false, false, false},
		{"SYN, IPv4", syn4, true, false, true},
		{"SYN, IPv4, options", synFrame(a4, 1, 40), true, false, true},
		{"SYN, IPv4, ECN", change(syn4, atTCP4+offTCPFlags, flagS|0xc0), true, false, true},
		{"SYN to another address, IPv4", synFrame(near4, 1, 0), false, false, true},
		{"SYN, ACK, IPv4", change(syn4, atTCP4+offTCPFlags, flagS|flagA), false, false, false},
		{"ACK, IPv4", change(syn4, atTCP4+offTCPFlags, flagA), false, false, false},
		{"fragment", change(syn4, offIPv4Fragment+1, 2), false, false, false},
		{"UDP, IPv4", change(syn4, offIPv4Proto, 17), false, false, false},
		{"SYN, IPv4, options, cut", synFrame(a4, 1, 40)[:offIP+60+offTCPFlags], false, false, false},
		{"SYN, IPv6", syn6, true, false, true},
		{"SYN to another address, IPv6", synFrame(near6, 1, 0), false, false, true},
		{"ACK, IPv6", change(syn6, atTCP6+offTCPFlags, flagA), false, false, false},
		{"UDP, IPv6", change(syn6, offIPv6Next, 17), false, false, false},
		{"another protocol", change(syn4, offEtherType, 0x88), false, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			check := func(name string, p []bpf.Instruction, want bool) {
				t.Helper()
				if got := passes(t, machine(t, p), tc.frame); got != want {
					t.Errorf("%s: %v, want %v", name, got, want)
				}
			}
			for _, n := range []int{2, 8, 60} {
				check(fmt.Sprintf("relay of %d", n), relayFilter(many(n)), tc.relay)
			}
			check("relay of 600", relayFilter(many(600)), tc.any)
			check("relay of none", relayFilter(nil), false)
			check("probe", probeFilter(), tc.probe)
		})
	}
}

func TestFilterLength(t *testing.T) {
	for _, tc := range []struct {
		addrs int
		short bool // the addresses are not in it
	}{{0, true}, {2, false}, {60, false}, {600, true}, {60000, true}} {
		addrs := many(max(tc.addrs, 2))[:tc.addrs]
		p := append(guard(), relayFilter(addrs)...)
		if _, err := bpf.Assemble(p); err != nil || len(p) > maxProgram+len(guard()) || (len(p) < 60) != tc.short {
			t.Errorf("%d addresses: %d instructions, %v", tc.addrs, len(p), err)
		}
	}
}

// A listener is woken only by claims of its addresses, not by questions.
func TestClaimFilters(t *testing.T) {
	self, a4, a6 := mac{2, 0, 0, 0, 0, 9}, netip.MustParseAddr(v4), netip.MustParseAddr(v6)
	other4, other6 := netip.MustParseAddr("10.74.9.9"), netip.MustParseAddr("fd74::9:9")
	question := make([]byte, ndLen)
	question[0] = typeNS
	for _, n := range []int{2, 8, 600} {
		all := n == 600 // too many for the filter
		four, six := machine(t, claimFilter4(many(n))), machine(t, claimFilter6(many(n)))
		for _, tc := range []struct {
			name  string
			vm    *bpf.VM
			frame []byte
			pass  bool
		}{
			{"announcement, IPv4", four, announcement(self, a4), true},
			{"probe, IPv4", four, probe(self, a4), true},
			{"question, IPv4", four, arpFrame(self, other4, a4), all},
			{"another address, IPv4", four, announcement(self, other4), all},
			{"IPv6 to that of IPv4", four, announcement(self, a6), false},
			{"announcement, IPv6", six, announcement(self, a6), true},
			{"probe, IPv6", six, probe(self, a6), true},
			{"question, IPv6", six, ndFrame(self, other6, solicited(a6), a6, question), false},
			{"another address, IPv6", six, announcement(self, other6), all},
			{"ARP to that of IPv6", six, announcement(self, a4), false},
		} {
			if got := passes(t, tc.vm, tc.frame); got != tc.pass {
				t.Errorf("%d addresses, %s: passes: %v", n, tc.name, got)
			}
		}
	}
}

// Every frame that a relay, a probe or a listener would act on passes its filter.
func FuzzFilter(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	addrs := many(8)
	relay, relayAll, probes := machine(f, relayFilter(addrs)), machine(f, relayFilter(many(600))), machine(f, probeFilter())
	claims4, claims6 := machine(f, claimFilter4(addrs)), machine(f, claimFilter6(addrs))
	f.Fuzz(func(t *testing.T, frame []byte) {
		h := parse(frame)
		ours := slices.Contains(addrs, h.addr)
		if (h.kind == claimed || h.kind == attempt) && ours && !passes(t, relay, frame) {
			t.Errorf("kept from the relay: %+v", h)
		}
		if (h.kind == claimed || h.kind == attempt) && !passes(t, relayAll, frame) {
			t.Errorf("kept from the relay of many: %+v", h)
		}
		if (h.kind == claimed || h.kind == probed) && !passes(t, probes, frame) {
			t.Errorf("kept from the probe: %+v", h)
		}
		if (h.kind == claimed || h.kind == probed) && ours && !passes(t, claims4, frame) && !passes(t, claims6, frame) {
			t.Errorf("kept from the listener: %+v", h)
		}
		if h.addr.IsValid() && !ours && passes(t, relay, frame) {
			t.Errorf("not kept from the relay: %+v", h)
		}
	})
}
