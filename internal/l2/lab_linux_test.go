package l2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// lab is a bridge with a few hosts, each in a network namespace without a name. Nothing of them is
// left when the test ends, in any way.
type lab []*host

// host is one namespace with an interface, eth0.
type host struct {
	t    testing.TB
	ns   netns.NsHandle
	nl   *netlink.Handle
	link netlink.Link
	ifi  *net.Interface
	mac  mac
}

// newLab returns the hosts. The i-th host has the addresses 10.73.0.i+1 and fd73::i+1.
func newLab(t testing.TB, hosts int) lab {
	t.Helper()
	bridge := newHost(t)
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	bridge.must(bridge.nl.LinkAdd(br))
	bridge.must(bridge.nl.LinkSetUp(br))
	l := make(lab, hosts)
	for i := range l {
		h := newHost(t)
		port := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprint("port", i), MasterIndex: br.Index},
			PeerName:  "eth0", PeerNamespace: netlink.NsFd(h.ns),
			PeerHardwareAddr: net.HardwareAddr{2, 0, 0, 0x73, 0, byte(i + 1)},
		}
		bridge.must(bridge.nl.LinkAdd(port))
		bridge.must(bridge.nl.LinkSetUp(port))
		var err error
		h.link, err = h.nl.LinkByName("eth0")
		h.must(err)
		h.must(h.nl.LinkSetUp(h.link))
		h.add(fmt.Sprintf("10.73.0.%d/24", i+1))
		h.add(fmt.Sprintf("fd73::%d/64", i+1))
		h.must(h.do(func() error {
			h.ifi, err = net.InterfaceByName("eth0")
			return err
		}))
		h.mac = mac(h.ifi.HardwareAddr)
		l[i] = h
	}
	for _, h := range l[1:] {
		reach(l[0], h)
		reach(h, l[0])
	}
	return l
}

// reach waits until the bridge forwards frames from one host to another. It begins some time after
// its ports are up.
func reach(from, to *host) {
	addr := netip.MustParseAddr("10.73.0.254")
	tap, link, buf := to.tap(relayFilter([]netip.Addr{addr})), from.open(), make([]byte, maxFrame)
	defer tap.Close()
	eventually(from.t, "the bridge carries frames", func() bool {
		if err := link.Announce(addr); err != nil && !errors.Is(err, unix.ENETDOWN) {
			from.t.Fatal(err)
		}
		tap.SetReadDeadline(time.Now().Add(time.Millisecond))
		n, _, err := tap.ReadFrom(buf)
		return err == nil && parse(buf[:n]).kind == claimed
	})
}

// synTo returns a SYN to a station.
func synTo(dst mac, addr netip.Addr, port uint16) []byte {
	frame := synFrame(addr, port, 0)
	copy(frame, dst[:])
	return frame
}

// newHost returns a host that has only a loopback interface.
func newHost(t testing.TB) *host {
	t.Helper()
	made := make(chan netns.NsHandle)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.New()
		for name, value := range map[string]string{
			"ipv6/conf/default/accept_dad": "0", // addresses are not tentative for a second
			"ipv4/ip_forward":              "0", // a forwarding host would act like a relay
			"ipv6/conf/all/forwarding":     "0",
		} {
			if err == nil {
				err = os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
			}
		}
		if err != nil {
			t.Log(err)
			ns = -1
		}
		made <- ns
	}()
	h := &host{t: t, ns: <-made}
	if h.ns == -1 {
		t.Skip("network namespaces need root and IPv6; here they cannot be made")
	}
	t.Cleanup(func() { h.ns.Close() })
	var err error
	h.nl, err = netlink.NewHandleAt(h.ns)
	h.must(err)
	t.Cleanup(h.nl.Close)
	return h
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// do runs f on a thread of the namespace. Sockets stay in the namespace that they were opened in.
func (h *host) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(h.ns)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// add gives the host an address, and returns when its kernel accepts packets for it. For IPv6 that
// is a millisecond or more after the address is there, even with nodad (addrconf_dad_work in
// net/ipv6/addrconf.c). Earlier packets are lost.
func (h *host) add(prefix string) {
	h.t.Helper()
	addr, err := netlink.ParseAddr(prefix)
	h.must(err)
	if addr.IP.To4() == nil {
		addr.Flags = unix.IFA_F_NODAD
	}
	h.must(h.nl.AddrAdd(h.link, addr))
	eventually(h.t, prefix+" is local", func() bool {
		routes, err := h.nl.RouteGet(addr.IP)
		return err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL
	})
}

// open returns the link of eth0.
func (h *host) open() *Link {
	h.t.Helper()
	var l *Link
	h.must(h.do(func() (err error) {
		l, err = Open(h.ifi)
		return err
	}))
	h.t.Cleanup(func() { l.Close() })
	return l
}

// hold returns a relay on eth0.
func (h *host) hold(addrs ...netip.Addr) *Relay {
	h.t.Helper()
	link := h.open()
	var r *Relay
	h.must(h.do(func() (err error) {
		r, err = link.Hold(addrs...)
		return err
	}))
	h.t.Cleanup(func() { r.Close() })
	return r
}

// probe probes on eth0.
func (h *host) probe(ctx context.Context, addr netip.Addr, tries int, wait time.Duration) (owner net.HardwareAddr, err error) {
	link := h.open()
	err = h.do(func() error {
		owner, err = link.Probe(ctx, addr, tries, wait)
		return err
	})
	return owner, err
}

// tap returns a socket that receives the frames on eth0 that pass the filter.
func (h *host) tap(filter []bpf.Instruction) *packet.Conn {
	h.t.Helper()
	var conn *packet.Conn
	h.must(h.do(func() (err error) {
		conn, err = openSocket(h.ifi, allProtocols, append(guard(), filter...))
		if err == nil {
			err = join(conn, multicast(allNodes()), multicast(solicited(netip.MustParseAddr(v6))))
		}
		return err
	}))
	h.t.Cleanup(func() { conn.Close() })
	return conn
}

// next returns the next frame of a tap.
func next(conn *packet.Conn) ([]byte, observed, error) {
	buf := make([]byte, maxFrame)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, _, err := conn.ReadFrom(buf)
	return buf[:n], parse(buf[:n]), err
}

// knows makes the host's kernel believe that it has just learned where addr is.
func (h *host) knows(addr netip.Addr, at mac) {
	h.t.Helper()
	h.must(h.nl.NeighSet(&netlink.Neigh{
		LinkIndex: h.ifi.Index, IP: addr.AsSlice(), HardwareAddr: at[:], State: netlink.NUD_REACHABLE,
	}))
}

// believes returns the hardware address at which the host's kernel expects addr.
func (h *host) believes(addr netip.Addr) mac {
	h.t.Helper()
	family := netlink.FAMILY_V6
	if addr.Is4() {
		family = netlink.FAMILY_V4
	}
	neighbours, err := h.nl.NeighList(h.ifi.Index, family)
	h.must(err)
	for _, n := range neighbours {
		if ip, _ := netip.AddrFromSlice(n.IP); ip.Unmap() == addr && len(n.HardwareAddr) == 6 {
			return mac(n.HardwareAddr)
		}
	}
	return mac{}
}

// serve accepts connections to addr until the test ends.
func (h *host) serve(addr netip.AddrPort) {
	h.t.Helper()
	var ln net.Listener
	h.must(h.do(func() (err error) {
		ln, err = net.Listen("tcp", addr.String())
		return err
	}))
	h.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			h.t.Cleanup(func() { conn.Close() })
		}
	}()
}

// dialled is the result of an attempt.
type dialled struct {
	took    time.Duration
	retrans uint32 // how often the kernel repeated the SYN
	err     error
}

// dial connects to addr and closes the connection.
func (h *host) dial(addr netip.AddrPort) (d dialled) {
	start := time.Now()
	d.err = h.do(func() error {
		conn, err := net.DialTimeout("tcp", addr.String(), 20*time.Second)
		d.took = time.Since(start)
		if err != nil {
			return err
		}
		defer conn.Close()
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			return err
		}
		var info *unix.TCPInfo
		err = errors.Join(raw.Control(func(fd uintptr) {
			info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		}), err)
		if err == nil {
			d.retrans = info.Total_retrans
		}
		return err
	})
	return d
}

// mute makes the host's kernel ignore frames on eth0, by a rule of nftables at the earliest hook.
func (h *host) mute() {
	h.t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(int(h.ns)))
	h.must(err)
	drop := nftables.ChainPolicyDrop
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyNetdev, Name: "l2test"})
	conn.AddChain(&nftables.Chain{
		Name: "mute", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookIngress,
		Priority: nftables.ChainPriorityRef(-500), Device: "eth0", Policy: &drop,
	})
	if err := conn.Flush(); err != nil {
		h.t.Skipf("this kernel has no netdev chains of nftables: %v", err)
	}
}

// eventually waits until f returns true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	tick, end := time.NewTicker(time.Millisecond), time.NewTimer(20*time.Second)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("not so after 20 s: %s", what)
		}
	}
}

// running returns how many goroutines run a method of this package.
func running(method string) int {
	buf := make([]byte, 1<<20)
	return bytes.Count(buf[:runtime.Stack(buf, true)], []byte("l2."+method+"("))
}
