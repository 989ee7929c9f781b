package l2

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func addresses() []netip.Addr { return []netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)} }

func TestAnnounceMovesNeighbours(t *testing.T) {
	l := newLab(t, 3)
	client, a, b := l[0], l[1], l[2]
	link := b.open()
	for _, addr := range addresses() {
		t.Run(addr.String(), func(t *testing.T) {
			client.knows(addr, a.mac)
			if got := client.believes(addr); got != a.mac {
				t.Fatalf("the client believes %v, want %v", got, a.mac)
			}
			start := time.Now()
			if err := link.Announce(addr); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the client has the new owner's hardware address", func() bool { return client.believes(addr) == b.mac })
			t.Logf("after %v", time.Since(start))
		})
	}
}

// When an interface's hardware address changes, as that of a bond can, announcements have the new
// one.
func TestAnnounceAfterChange(t *testing.T) {
	l := newLab(t, 2)
	client, a := l[0], l[1]
	link := a.open()
	changed := mac{2, 0, 0, 0x73, 0xff, 1}
	a.must(a.nl.LinkSetHardwareAddr(a.link, changed[:]))
	client.knows(addresses()[0], foreign())
	if err := link.Announce(addresses()[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client has the new hardware address", func() bool { return client.believes(addresses()[0]) == changed })
}

func TestAnnounceErrors(t *testing.T) {
	l := newLab(t, 2)
	client, a := l[0], l[1]
	link := a.open()
	client.knows(addresses()[0], foreign())
	err := link.Announce(netip.MustParseAddr("ff02::5"), addresses()[0])
	if err == nil || !strings.Contains(err.Error(), "ff02::5") || strings.Contains(err.Error(), v4) {
		t.Errorf("a group among the addresses: %v", err)
	}
	eventually(t, "the address beside it is announced", func() bool { return client.believes(addresses()[0]) == a.mac })
	a.must(a.nl.LinkSetDown(a.link))
	if err := link.Announce(addresses()...); !errors.Is(err, unix.ENETDOWN) || strings.Count(err.Error(), "cannot announce") != 2 {
		t.Errorf("on an interface that is down: %v", err)
	}
	a.must(a.nl.LinkDel(a.link))
	if err := link.Announce(addresses()...); err == nil || !strings.Contains(err.Error(), "eth0: the interface is gone") {
		t.Errorf("on an interface that is gone: %v", err)
	}
	for range 2 {
		if err := link.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := link.Announce(addresses()...); !errors.Is(err, net.ErrClosed) {
		t.Errorf("on a closed link: %v", err)
	}
}

// The kernel takes the answer to a question that it did not send, if it waits for the answer.
func TestAsk(t *testing.T) {
	l := newLab(t, 2)
	a, b := l[0], l[1]
	link := a.open()
	for _, tc := range []struct{ own, neighbour string }{{v4 + "/24", "10.73.0.109"}, {v6 + "/64", "fd73::109"}} {
		t.Run(tc.neighbour, func(t *testing.T) {
			a.add(tc.own)
			b.add(tc.neighbour + tc.own[strings.Index(tc.own, "/"):])
			own, neighbour := netip.MustParsePrefix(tc.own).Addr(), netip.MustParseAddr(tc.neighbour)
			a.must(a.nl.NeighSet(&netlink.Neigh{LinkIndex: a.ifi.Index, IP: neighbour.AsSlice(), State: netlink.NUD_INCOMPLETE}))
			if err := link.Ask(own, neighbour); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the neighbour is found", func() bool { return a.believes(neighbour) == b.mac })
		})
	}
	err := link.Ask(netip.MustParseAddr(v4), netip.MustParseAddr("fd73::109"))
	if err == nil || !strings.Contains(err.Error(), "cannot ask for fd73::109") || !strings.Contains(err.Error(), v4+" is of another family") {
		t.Errorf("a question of one family for an address of the other: %v", err)
	}
	link.Close()
	if err := link.Ask(netip.MustParseAddr(v4), netip.MustParseAddr("10.73.0.109")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed link: %v, want %v", err, net.ErrClosed)
	}
}

func TestOpenErrors(t *testing.T) {
	h := newLab(t, 1)[0]
	t.Run("loopback", func(t *testing.T) {
		err := h.do(func() error {
			lo, err := net.InterfaceByName("lo")
			if err == nil {
				_, err = Open(lo)
			}
			return err
		})
		if err == nil || err.Error() != "lo: not an Ethernet interface" {
			t.Error(err)
		}
	})
	t.Run("without the capability", func(t *testing.T) {
		header, none := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, new([2]unix.CapUserData)
		err := h.do(func() error { // on a thread that ends afterwards
			if err := unix.Capset(&header, &none[0]); err != nil {
				return err
			}
			_, err := Open(h.ifi)
			return err
		})
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "cannot open a packet socket of eth0: this process lacks the capability NET_RAW") {
			t.Error(err)
		}
	})
}

func TestProbe(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits, and has hosts of its own
	l := newLab(t, 3)
	a, b, witness := l[0], l[1], l[2]
	for _, addr := range addresses() {
		t.Run(addr.String(), func(t *testing.T) {
			t.Run("nobody", func(t *testing.T) {
				tap := witness.tap(probeFilter())
				start := time.Now()
				owner, err := a.probe(t.Context(), addr, 3, 20*time.Millisecond)
				if owner != nil || err != nil {
					t.Errorf("%v, %v", owner, err)
				}
				if took := time.Since(start); took < 60*time.Millisecond {
					t.Errorf("it gave up after %v", took)
				} else {
					t.Logf("3 times 20 ms took %v", took)
				}
				// The last frame that the witness receives.
				b.must(b.open().Announce(netip.MustParseAddr("10.73.0.200")))
				for n := 0; ; {
					_, h, err := next(tap)
					if err != nil {
						t.Fatal(err)
					}
					if h.kind == probed && h.addr == addr && h.mac == a.mac {
						n++
					}
					if h.kind == claimed && h.addr == netip.MustParseAddr("10.73.0.200") {
						if n != 3 {
							t.Errorf("%d probes were seen, want 3", n)
						}
						break
					}
				}
			})
			t.Run("cancelled", func(t *testing.T) {
				tap := witness.tap(probeFilter())
				ctx, cancel := context.WithCancelCause(t.Context())
				go func() {
					next(tap) // the probe
					cancel(errors.New("enough"))
				}()
				owner, err := a.probe(ctx, addr, 1, time.Hour)
				if owner != nil || err == nil || err.Error() != "enough" {
					t.Errorf("%v, %v", owner, err)
				}
				if _, err := a.probe(ctx, addr, 1, time.Hour); err == nil || err.Error() != "enough" {
					t.Errorf("from the beginning: %v", err)
				}
			})
			// answer is what another station does after a probe.
			for _, tc := range []struct {
				name   string
				answer func(frame []byte) []byte
				owner  mac
			}{
				{"another probes", func([]byte) []byte { return probe(b.mac, addr) }, b.mac},
				{"another announces", func([]byte) []byte { return announcement(b.mac, addr) }, b.mac},
				{"a switch sends it back", func(frame []byte) []byte { return frame }, mac{}},
			} {
				t.Run(tc.name, func(t *testing.T) {
					tap, ended := b.tap(probeFilter()), make(chan struct{})
					defer func() { tap.Close(); <-ended }()
					go func() {
						defer close(ended)
						for {
							frame, h, err := next(tap)
							if err != nil {
								return
							}
							if h.kind == probed && h.mac == a.mac {
								send(tap, tc.answer(frame))
							}
						}
					}()
					owner, err := a.probe(t.Context(), addr, 1, time.Second)
					if err != nil || mac(append(owner, make([]byte, 6)...)[:6]) != tc.owner {
						t.Errorf("%v, %v; want %v", owner, err, tc.owner)
					}
				})
			}
			t.Run("this machine has it", func(t *testing.T) {
				a.add(netip.PrefixFrom(addr, addr.BitLen()).String())
				owner, err := a.probe(t.Context(), addr, 2, 20*time.Millisecond)
				if owner != nil || err != nil {
					t.Errorf("%v, %v", owner, err)
				}
			})
			t.Run("another machine has it", func(t *testing.T) {
				start := time.Now()
				owner, err := b.probe(t.Context(), addr, 1, 10*time.Second)
				if err != nil || owner == nil || mac(owner) != a.mac {
					t.Errorf("%v, %v; want %v", owner, err, a.mac)
				}
				t.Logf("found after %v", time.Since(start))
			})
		})
	}
	t.Run("not an address", func(t *testing.T) {
		if _, err := a.probe(t.Context(), netip.MustParseAddr("224.0.0.1"), 1, time.Hour); err == nil || !strings.Contains(err.Error(), "is not an address that a node can have on a link") {
			t.Error(err)
		}
	})
	t.Run("interface down", func(t *testing.T) {
		a.must(a.nl.LinkSetDown(a.link))
		if _, err := a.probe(t.Context(), netip.MustParseAddr("10.73.0.201"), 1, time.Hour); !errors.Is(err, unix.ENETDOWN) {
			t.Error(err)
		}
	})
}

// A station on a VLAN is not on the interface below it. The kernel removes the tag before the tap
// sees the frame.
func TestVLAN(t *testing.T) {
	l := newLab(t, 2)
	a, b := l[0], l[1]
	relay, tap := a.hold(addresses()[0]), a.tap(relayFilter([]netip.Addr{netip.MustParseAddr("10.73.0.201")}))
	out := b.tap(relayFilter(nil))
	tagged := func(addr netip.Addr, vlan byte) []byte {
		frame := announcement(b.mac, addr)
		return slices.Insert(frame, offEtherType, 0x81, 0x00, 7<<5, vlan) // with a priority
	}
	b.must(send(out, tagged(addresses()[0], 7)))
	b.must(send(out, announcement(b.mac, netip.MustParseAddr("10.73.0.201"))))
	if _, h, err := next(tap); err != nil || h.kind != claimed {
		t.Fatalf("%+v, %v", h, err)
	}
	// The relay's socket got the frame on the VLAN before the tap got the next one. It has dropped
	// it.
	b.must(send(out, synTo(a.mac, addresses()[0], 1)))
	eventually(t, "the attempt is kept", func() bool { return relay.Stats().Kept == 1 })
	select {
	case <-relay.announced:
		t.Error("a frame of a VLAN is taken for one of the interface below")
	default:
	}
	b.must(send(out, tagged(addresses()[0], 0)))
	if err := relay.Await(t.Context()); err != nil {
		t.Errorf("a frame with a priority and without a VLAN is not taken for one of the interface: %v", err)
	}
}

func BenchmarkAnnounce(b *testing.B) {
	link := newLab(b, 1)[0].open()
	for _, addr := range addresses() {
		b.Run(addr.String(), func(b *testing.B) {
			for b.Loop() {
				if err := link.Announce(addr); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
