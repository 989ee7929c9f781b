package fence

import (
	"net/netip"
	"testing"
	"time"
)

func BenchmarkExtend(b *testing.B) {
	_, fence := bench(b)
	for b.Loop() {
		must(b, fence.Extend(time.Now().Add(time.Second)))
	}
}

func BenchmarkSet100(b *testing.B) {
	addrs, fence := bench(b)
	for b.Loop() {
		must(b, fence.Set(Serving, time.Minute, addrs...))
	}
}

func BenchmarkCheck(b *testing.B) {
	_, fence := bench(b)
	for b.Loop() {
		must(b, fence.Check())
	}
}

func BenchmarkRestore(b *testing.B) {
	_, fence := bench(b)
	for b.Loop() {
		must(b, fence.Restore())
	}
}

func BenchmarkOpen(b *testing.B) {
	ns, _ := namespace(b)
	for b.Loop() {
		f, err := open("bench", int(ns))
		must(b, err)
		must(b, f.Close())
	}
}

// bench returns a fence with 100 guarded addresses.
func bench(b *testing.B) (addrs []netip.Addr, f *Fence) {
	ns, _ := namespace(b)
	f = openAt(b, ns, "bench")
	for i := range 50 {
		addrs = append(addrs, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 15: byte(i)}))
	}
	must(b, f.Guard("lo", addrs...))
	return addrs, f
}
