package fence

import (
	"context"
	"io"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// serve makes the node echo, over TCP and UDP, on all of its addresses.
func (l *lab) serve() {
	l.t.Helper()
	within(l.t, l.node, func() error {
		for _, f := range []family{v4(), v6()} {
			for _, a := range []netip.Addr{f.node, f.addr, f.other} {
				if err := l.serveAt(a); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (l *lab) serveAt(a netip.Addr) error {
	t := l.t // of the whole lab, not of a subtest
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, tcpPort)))
	if err != nil {
		return err
	}
	t.Cleanup(func() { tcp.Close() })
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go io.Copy(c, c)
		}
	}()
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, udpPort)))
	if err != nil {
		return err
	}
	t.Cleanup(func() { udp.Close() })
	go func() {
		b := make([]byte, 64)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			udp.WriteToUDPAddrPort(b[:n], from) // a dropped packet is an error here, and expected
		}
	}()
	return nil
}

// dial begins a TCP connection from the peer. The channel delivers the connection when it is
// established. dial closes the channel when ctx ends or the connection fails.
func (l *lab) dial(ctx context.Context, a netip.Addr) <-chan net.Conn {
	t, made := l.t, make(chan net.Conn, 1)
	go func() {
		runtime.LockOSThread() // there is one address, so the socket is made on this thread
		defer close(made)
		if err := unix.Setns(int(l.peer), unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		var d net.Dialer
		if c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, tcpPort).String()); err == nil {
			made <- c
		}
	}()
	return made
}

// want checks whether a question to a was answered. done asks the same of any address. When the
// node's own address has answered three times, the guarded one has had enough time.
func (l *lab) want(answered bool, k kind, f family, done func(netip.Addr)) {
	l.t.Helper()
	l.wire.forget()
	done(f.addr)
	if answered {
		if !l.wire.wait(k, f.addr, 1, answerTime) {
			l.t.Errorf("no %s came from %v", k, f.addr)
		}
		return
	}
	for i := range 3 {
		done(f.node)
		if !l.wire.wait(k, f.node, i+1, answerTime) {
			l.t.Fatalf("no %s came from %v, which nobody guards", k, f.node)
		}
	}
	if n := len(l.wire.sights(k, f.addr)); n > 0 {
		l.t.Errorf("%d times %s came from %v", n, k, f.addr)
	}
}

// TestStates goes through the states with both hooks, and with each alone: one hook could hide a
// mistake of the other.
func TestStates(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	l := newLab(t)
	l.serve()
	fence := l.open("states", v4().addr, v6().addr)
	for _, hooks := range []struct{ name, without string }{{"both", ""}, {"ingress", "out"}, {"egress", "in"}} {
		if hooks.without != "" {
			must(t, fence.Restore())
			must(t, fence.link.ask(func(c *nftables.Conn) error {
				c.FlushChain(&nftables.Chain{Name: hooks.without, Table: fence.layout.table})
				return c.Flush()
			}))
		}
		for _, f := range []family{v4(), v6()} {
			t.Run(hooks.name+" "+f.addr.String(), func(t *testing.T) {
				l.t = t
				testStates(t, l, fence, f, hooks.without != "in", hooks.without != "out")
			})
		}
	}
}

func testStates(t *testing.T, l *lab, fence *Fence, f family, ingress, egress bool) {
	must(t, fence.Extend(long()))
	must(t, fence.Set(Serving, 0, f.addr))
	ctx, cancel := context.WithTimeout(t.Context(), answerTime)
	defer cancel()
	echo, own := <-l.dial(ctx, f.addr), <-l.dial(ctx, f.node)
	if echo == nil || own == nil {
		t.Fatal("connections could not be made while all passes")
	}
	defer echo.Close()
	defer own.Close()
	var udp *net.UDPConn
	within(t, l.peer, func() (err error) {
		udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.peer, 0)))
		return err
	})
	defer udp.Close()
	raw := l.listen(l.node, nodeDevice) // of the node
	defer raw.Close()

	for _, tt := range []struct {
		name                   string
		state                  State
		lease                  bool
		resolve, connect, flow bool
	}{
		{"serving", Serving, true, true, true, true},
		{"quiet", Quiet, true, true, false, true},
		{"muted", Muted, true, false, false, true},
		{"closed", Closed, true, false, false, false},
		{"serving without a lease", Serving, false, false, false, false},
		{"muted without a lease", Muted, false, false, false, false},
		{"serving again", Serving, true, true, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l.t = t
			must(t, fence.Set(tt.state, 0, f.addr))
			until := long()
			if !tt.lease {
				until = time.Now()
			}
			must(t, fence.Extend(until))

			// Questions and announcements.
			answer := arpReply
			if f.addr.Is6() {
				answer = ndAdvert
			}
			l.want(tt.resolve, answer, f, func(a netip.Addr) { l.ask(a) })
			probe := func(a netip.Addr) { // for duplicates
				if a.Is4() {
					send(t, l.sender, arpFrame(1, broadcast(), l.peerMAC, netip.IPv4Unspecified(), a))
				} else {
					send(t, l.sender, ndFrame(neighbourSolicitation, l.peerMAC, netip.IPv6Unspecified(), solicitedNode(a), a))
				}
			}
			l.want(tt.resolve, answer, f, probe)
			announced := arpRequest
			if f.addr.Is6() {
				announced = ndAdvert
			}
			l.want(tt.resolve || !egress, announced, f, func(a netip.Addr) { l.announce(raw, l.nodeMAC, a) })
			if f.addr.Is6() { // a question with the address as sender tells where it is, too
				l.want(tt.resolve || !egress, ndSolicit, f, func(a netip.Addr) {
					send(t, raw, ndFrame(neighbourSolicitation, l.nodeMAC, a, solicitedNode(f.peer), f.peer))
				})
			}

			// UDP, an existing connection, and a new one.
			l.want(tt.flow, udpData, f, func(a netip.Addr) {
				if _, err := udp.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(a, udpPort)); err != nil {
					t.Error(err)
				}
			})
			l.want(tt.flow, tcpData, f, func(a netip.Addr) {
				c := echo
				if a == f.node {
					c = own
				}
				if _, err := c.Write([]byte("hello")); err != nil {
					t.Error(err)
				}
			})
			ctx, cancel := context.WithCancel(t.Context())
			var dialled []<-chan net.Conn
			l.want(tt.connect || tt.flow && !ingress, synAck, f, func(a netip.Addr) { dialled = append(dialled, l.dial(ctx, a)) })
			cancel()
			for _, made := range dialled {
				for c := range made {
					c.Close()
				}
			}
		})
	}
	t.Run("nothing is lost", func(t *testing.T) {
		b := make([]byte, 7*5)
		must(t, echo.SetReadDeadline(time.Now().Add(answerTime)))
		if _, err := io.ReadFull(echo, b); err != nil {
			t.Errorf("the connection did not outlive the states: %v", err)
		}
	})
}

// announce sends the announcements of an owner of a.
func (l *lab) announce(c *packet.Conn, mac net.HardwareAddr, a netip.Addr) {
	l.t.Helper()
	if a.Is4() {
		send(l.t, c, arpFrame(1, broadcast(), mac, a, a))
	} else {
		send(l.t, c, ndFrame(neighbourAdvertisement, mac, a, netip.MustParseAddr("ff02::1"), a))
	}
}
