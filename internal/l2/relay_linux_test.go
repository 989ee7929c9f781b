package l2

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// A planned move as the client sees it. The old owner's kernel accepts no new connections, because
// the address is muted or gone, until the new owner announces it. The client's kernel repeats an
// unanswered SYN after a second; tcpi_total_retrans tells whether it had to.
func TestRelay(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits, and has hosts of its own
	const clients = 40
	for _, tc := range []struct {
		name  string
		relay bool
		owner func(a *host, addr netip.Addr)
	}{
		{"muted by nftables", true, func(a *host, addr netip.Addr) {
			a.add(netip.PrefixFrom(addr, addr.BitLen()).String())
			a.serve(netip.AddrPortFrom(addr, 443))
			a.mute()
		}},
		{"address gone", true, func(*host, netip.Addr) {}},
		{"without a relay", false, func(*host, netip.Addr) {}},
	} {
		for _, addr := range addresses() {
			t.Run(tc.name+"/"+addr.String(), func(t *testing.T) {
				l := newLab(t, 3)
				client, a, b := l[0], l[1], l[2]
				target := netip.AddrPortFrom(addr, 443)
				tc.owner(a, addr)
				client.knows(addr, a.mac)
				addrs := []netip.Addr{addr}
				link := b.open()
				var relay *Relay
				if tc.relay {
					relay = a.hold(addr)
				}
				tap := a.tap(relayFilter(addrs))

				results := make(chan dialled)
				for range clients {
					go func() { results <- client.dial(target) }()
				}
				for range clients {
					if _, h, err := next(tap); err != nil || h.kind != attempt {
						t.Fatalf("%+v, %v", h, err)
					}
				}
				if tc.relay {
					eventually(t, "all are kept", func() bool { return relay.Stats().Kept == clients })
				}
				b.add(netip.PrefixFrom(addr, addr.BitLen()).String())
				b.serve(target)
				announced := time.Now()
				b.must(link.Announce(addr))
				if tc.relay {
					if err := relay.Await(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				var took []time.Duration
				repeated := 0
				for range clients {
					d := <-results
					if d.err != nil {
						t.Error(d.err)
					}
					if d.retrans > 0 {
						repeated++
					}
					took = append(took, d.took)
				}
				slices.Sort(took)
				t.Logf("%d connections took %v to %v, the last was there %v after the announcement; %d SYNs were repeated",
					clients, took[0], took[clients-1], time.Since(announced), repeated)
				if !tc.relay {
					if repeated != clients || took[0] < 900*time.Millisecond {
						t.Errorf("the test shows nothing: without the relay only %d of %d SYNs were repeated", repeated, clients)
					}
					return
				}
				if repeated > 0 || took[clients-1] > 900*time.Millisecond {
					t.Errorf("%d clients had to repeat their SYN, the slowest connection took %v", repeated, took[clients-1])
				}
				if got, want := relay.Stats(), (RelayStats{Kept: clients, Forwarded: clients}); got != want {
					t.Errorf("%+v, want %+v", got, want)
				}

				// An attempt by a client that does not know of the move, to the old owner.
				client.knows(addr, a.mac)
				if d := client.dial(target); d.err != nil || d.retrans > 0 {
					t.Errorf("a late connection: %+v", d)
				} else {
					t.Logf("a late one took %v", d.took)
				}
				eventually(t, "its SYN was sent on", func() bool {
					return relay.Stats() == RelayStats{Kept: clients, Forwarded: clients + 1}
				})
			})
		}
	}
}

// Each address waits for its own announcement. Await waits for all of them.
func TestRelayOfMany(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for _, n := range []int{6, 600} { // few enough for the filter, and too many
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			l := newLab(t, 3)
			client, a, b := l[0], l[1], l[2]
			addrs := many(n)
			relay := a.hold(append(addrs, addrs[0])...) // one twice
			from, link := client.tap(relayFilter(nil)), b.open()
			for i, addr := range addrs {
				b.must(send(from, synTo(a.mac, addr, uint16(i))))
				b.must(send(from, synTo(a.mac, addr, uint16(i)))) // a retransmission
			}
			b.must(send(from, synTo(a.mac, netip.MustParseAddr("10.99.0.1"), 1))) // another address
			b.must(send(from, synTo(foreign(), netip.MustParseAddr(v4), 1)))      // another station
			b.must(send(from, synTo(broadcast(), netip.MustParseAddr(v4), 1)))    // not an attempt
			// This one is cut off.
			b.must(send(from, synTo(a.mac, netip.MustParseAddr(v4), 1)[:etherLen+ipv4Len+tcpLen-1]))
			eventually(t, "all are kept", func() bool { return relay.Stats().Kept == n })

			tap := b.tap(relayFilter(addrs))
			for i, addr := range addrs {
				select {
				case <-relay.announced:
					t.Fatal("Await would return before all are announced")
				default:
				}
				b.must(link.Announce(addr))
				frame, h, err := next(tap)
				if err != nil || h.kind != attempt || h.addr != addr || h.key.src.Port() != uint16(i) || h.source != a.mac {
					t.Fatalf("%x: %+v, %v", frame, h, err)
				}
				if want := synTo(b.mac, addr, uint16(i)); string(frame[12:]) != string(want[12:]) {
					t.Errorf("the packet that was sent on is %x, want %x", frame, want)
				}
			}
			if err := relay.Await(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got, want := relay.Stats(), (RelayStats{Kept: n, Forwarded: n}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// Frames of the machine itself, and those that a switch returns to it, do not name the new owner.
func TestRelayIgnoresItself(t *testing.T) {
	l := newLab(t, 2)
	a, b := l[0], l[1]
	relay, link := a.hold(addresses()...), a.open()
	tap := b.tap(relayFilter(addresses()))
	a.must(link.Announce(addresses()...))
	for range addresses() {
		frame, _, err := next(tap)
		if err != nil {
			t.Fatal(err)
		}
		b.must(send(tap, frame))
	}
	eventually(t, "the attempt is kept, so the frames before it were read", func() bool {
		a.must(link.Announce(netip.MustParseAddr("10.73.0.200"))) // the bridge learns where a is
		b.must(send(tap, synTo(a.mac, addresses()[0], 1)))
		return relay.Stats().Kept == 1
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if err := relay.Await(ctx); err == nil || err.Error() != "enough" {
		t.Errorf("Await: %v", err)
	}
	if got := relay.Stats(); got != (RelayStats{Kept: 1}) {
		t.Errorf("%+v", got)
	}
}

// An address may move on while the relay is open. Relays that take each other for the owner do not
// go on for ever.
func TestRelayInACircle(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	l := newLab(t, 4)
	client, addr := l[0], addresses()[0]
	from := client.tap(relayFilter(nil))
	var relays []*Relay
	for i, h := range l[1:] {
		r := h.hold(addr)
		b := announcement(l[1+(i+1)%3].mac, addr)
		copy(b, h.mac[:])          // to this one alone,
		copy(b[6:], client.mac[:]) // and the bridge goes on knowing who is where
		h.must(send(from, b))
		h.must(r.Await(t.Context()))
		relays = append(relays, r)
	}
	client.must(send(from, synTo(l[1].mac, addr, 1)))
	eventually(t, "one has given up", func() bool {
		return slices.ContainsFunc(relays, func(r *Relay) bool { return r.Stats().Lost == 1 })
	})
	for i, r := range relays {
		if got := r.Stats(); got.Kept != 0 || got.Forwarded != maxSent {
			t.Errorf("relay %d: %+v, want %d sent on", i, got, maxSent)
		}
	}
	// Now the last one says that the first is the owner, and the first one that the last is.
	b := announcement(l[3].mac, addr)
	copy(b, l[1].mac[:])
	copy(b[6:], client.mac[:])
	client.must(send(from, b))
	client.must(send(from, synTo(l[1].mac, addr, 2)))
	client.must(send(from, synTo(l[3].mac, addr, 3)))
	eventually(t, "each has sent one on", func() bool {
		return relays[0].Stats().Forwarded == maxSent+1 && relays[2].Stats().Forwarded == maxSent+1
	})
}

// A flood of attempts takes bounded room, and what is lost is counted.
func TestRelayBounds(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	l := newLab(t, 2)
	a, b := l[0], l[1]
	relay, from := a.hold(addresses()...), b.tap(relayFilter(nil))
	damaged := synTo(a.mac, addresses()[0], 1)
	damaged[len(damaged)-1] = 1 // the urgent pointer
	b.must(send(from, damaged))
	for i := range maxKept + 10 {
		b.must(send(from, synTo(a.mac, addresses()[i%2], uint16(i))))
		if i%100 == 0 { // the socket's buffer has room
			eventually(t, "the relay follows", func() bool { return relay.Stats().Kept > min(i, maxKept-1) })
		}
	}
	eventually(t, "the rest is lost", func() bool { return relay.Stats() == RelayStats{Kept: maxKept, Lost: 11} })
	b.must(b.open().Announce(addresses()...))
	if err := relay.Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := relay.Stats(), (RelayStats{Kept: maxKept, Forwarded: maxKept, Lost: 11}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestRelayOutlivesALinkThatIsDown(t *testing.T) {
	l := newLab(t, 2)
	a, b := l[0], l[1]
	addr := addresses()[0]
	a.must(a.nl.LinkSetDown(a.link))
	relay := a.hold(addr)
	a.must(a.nl.LinkSetUp(a.link))
	a.must(a.nl.LinkSetDown(a.link))
	a.must(a.nl.LinkSetUp(a.link))
	reach(b, a)
	b.must(b.open().Announce(addr))
	if err := relay.Await(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestRelayEnds(t *testing.T) {
	h := newLab(t, 1)[0]
	before := running("(*Relay).run")
	relay := h.hold(addresses()...)
	eventually(t, "this test sees the goroutine", func() bool { return running("(*Relay).run") == before+1 })
	waited := make(chan error)
	go func() { waited <- relay.Await(t.Context()) }()
	for range 2 {
		if err := relay.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-waited; !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("Await: %v", err)
	}
	eventually(t, "the goroutine has ended", func() bool { return running("(*Relay).run") == before })
	if got := relay.Stats(); got != (RelayStats{}) {
		t.Errorf("%+v", got)
	}
	t.Run("nothing to move", func(t *testing.T) {
		if err := h.hold().Await(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("not an address", func(t *testing.T) {
		if _, err := h.open().Hold(netip.MustParseAddr("::1")); err == nil || !strings.Contains(err.Error(), "is not an address that a node can have on a link") {
			t.Error(err)
		}
	})
}

// The cost of a relay for a server whose traffic does not concern it: a datagram from one namespace
// to another.
func BenchmarkTraffic(b *testing.B) {
	for _, n := range []int{0, 2, 60, 600} {
		b.Run(fmt.Sprintf("relay of %d", n), func(b *testing.B) {
			l := newLab(b, 2)
			if n > 0 {
				l[0].hold(many(n)...)
			}
			var server, conn net.Conn
			l[0].must(l[0].do(func() error {
				pc, err := net.ListenPacket("udp", "10.73.0.1:9")
				if err == nil {
					server = pc.(*net.UDPConn)
				}
				return err
			}))
			defer server.Close()
			l[1].must(l[1].do(func() (err error) {
				conn, err = net.Dial("udp", "10.73.0.1:9")
				return err
			}))
			defer conn.Close()
			payload := make([]byte, 1000)
			for b.Loop() {
				if _, err := conn.Write(payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkHear(b *testing.B) {
	for _, frame := range [][]byte{announcement(foreign(), addresses()[0]), announcement(foreign(), addresses()[1]), synFrame(addresses()[0], 1, 0)} {
		b.Run(fmt.Sprint(parse(frame).kind, parse(frame).addr), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				parse(frame)
			}
		})
	}
}
