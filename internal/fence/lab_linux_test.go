package fence

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The addresses of the lab, by family: of the node, of its peer, and those guarded on the node.
type family struct {
	node, peer, addr, other netip.Addr
	bits                    int
}

func v4() family {
	return family{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("192.0.2.101"), 24}
}

func v6() family {
	return family{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8::100"), netip.MustParseAddr("2001:db8::101"), 64}
}

const (
	nodeDevice = "fence0"
	peerDevice = "fence1"
	tcpPort    = 7001
	udpPort    = 7002
)

// lab is two network namespaces, of a node and a peer, with a link between them. The namespaces
// have no names and vanish with the test.
type lab struct {
	t              *testing.T
	node, peer     netns.NsHandle
	nodeAt, peerAt *netlink.Handle
	nodeMAC        net.HardwareAddr
	peerMAC        net.HardwareAddr
	wire           *wire // at the peer
	sender         *packet.Conn
}

// newLab makes a lab, or skips the test. The node has the guarded addresses.
func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t}
	l.node, l.nodeAt = namespace(t)
	l.peer, l.peerAt = namespace(t)
	l.plug()
	return l
}

// namespace makes a network namespace.
func namespace(t testing.TB) (netns.NsHandle, *netlink.Handle) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces are made by root only")
	}
	var ns netns.NsHandle
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err = netns.New()
	}()
	<-done
	if err != nil {
		t.Skipf("this machine does not let network namespaces be made: %v", err)
	}
	t.Cleanup(func() { ns.Close() })
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	lo, err := h.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	return ns, h
}

// within runs f on a thread in the namespace: sockets that it opens belong there.
func within(t testing.TB, ns netns.NsHandle, f func() error) {
	t.Helper()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			failed <- err
			return
		}
		failed <- f()
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

// plug makes the link between the two, with all addresses.
func (l *lab) plug() {
	t := l.t
	t.Helper()
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nodeDevice, Namespace: netlink.NsFd(l.node)}, PeerName: peerDevice, PeerNamespace: netlink.NsFd(l.peer)}
	must(t, l.nodeAt.LinkAdd(pair))
	for _, end := range []struct {
		h    *netlink.Handle
		name string
	}{{l.nodeAt, nodeDevice}, {l.peerAt, peerDevice}} {
		link, err := end.h.LinkByName(end.name)
		must(t, err)
		must(t, end.h.LinkSetUp(link))
	}
	up := func(h *netlink.Handle, name string, addrs ...netip.Prefix) net.HardwareAddr {
		t.Helper()
		var link netlink.Link
		eventually(t, "there is a carrier", func() (up bool) { // IPv6 needs it
			var err error
			link, err = h.LinkByName(name)
			must(t, err)
			return link.Attrs().OperState == netlink.OperUp
		})
		for _, a := range addrs {
			must(t, h.AddrAdd(link, address(a)))
		}
		return link.Attrs().HardwareAddr
	}
	l.nodeMAC = up(l.nodeAt, nodeDevice, netip.PrefixFrom(v4().node, 24), netip.PrefixFrom(v6().node, 64),
		netip.PrefixFrom(v4().addr, 32), netip.PrefixFrom(v6().addr, 128), netip.PrefixFrom(v4().other, 32), netip.PrefixFrom(v6().other, 128))
	l.peerMAC = up(l.peerAt, peerDevice, netip.PrefixFrom(v4().peer, 24), netip.PrefixFrom(v6().peer, 64))
	// The peer knows the hardware address. So a missing answer is not due to a missing ARP answer.
	for _, a := range []netip.Addr{v4().addr, v6().addr, v4().node, v6().node} {
		must(t, l.peerAt.NeighSet(l.neighbour(l.peerAt, peerDevice, a, l.nodeMAC, netlink.NUD_PERMANENT)))
	}
	for _, a := range []netip.Addr{v4().peer, v6().peer} {
		must(t, l.nodeAt.NeighSet(l.neighbour(l.nodeAt, nodeDevice, a, l.peerMAC, netlink.NUD_PERMANENT)))
	}
	l.wire = tap(t, l.peer, peerDevice)
	l.sender = l.listen(l.peer, peerDevice)
}

// unplug removes the link.
func (l *lab) unplug() {
	l.t.Helper()
	link, err := l.nodeAt.LinkByName(nodeDevice)
	if err == nil {
		err = l.nodeAt.LinkDel(link)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) neighbour(h *netlink.Handle, name string, a netip.Addr, mac net.HardwareAddr, state int) *netlink.Neigh {
	l.t.Helper()
	link, err := h.LinkByName(name)
	if err != nil {
		l.t.Fatal(err)
	}
	return &netlink.Neigh{LinkIndex: link.Attrs().Index, State: state, IP: a.AsSlice(), HardwareAddr: mac}
}

func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// open opens a fence on the node that guards the lab's addresses. It skips the test if the kernel
// cannot.
func (l *lab) open(name string, addrs ...netip.Addr) *Fence {
	l.t.Helper()
	f := openAt(l.t, l.node, name)
	if err := f.Guard(nodeDevice, addrs...); err != nil {
		l.t.Fatal(err)
	}
	return f
}

func openAt(t testing.TB, ns netns.NsHandle, name string) *Fence {
	t.Helper()
	f, err := open(name, int(ns))
	if errors.Is(err, ErrUnsupported) {
		t.Skipf("fences do not work here: %v", err)
	}
	must(t, err)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// listen opens a socket for frames.
func (l *lab) listen(ns netns.NsHandle, name string) *packet.Conn {
	l.t.Helper()
	var c *packet.Conn
	within(l.t, ns, func() error {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		c, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
		return err
	})
	l.t.Cleanup(func() { c.Close() })
	return c
}

// send sends a frame. If the egress drops it, the kernel returns ENOBUFS, and send returns nil.
func send(t *testing.T, c *packet.Conn, frame []byte) {
	t.Helper()
	if _, err := c.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]}); err != nil && !errors.Is(err, unix.ENOBUFS) {
		t.Fatal(err)
	}
}

// kind is what a frame means to these tests.
type kind string

const (
	arpRequest kind = "ARP request"
	arpReply   kind = "ARP reply"
	ndSolicit  kind = "neighbour solicitation"
	ndAdvert   kind = "neighbour advertisement"
	synAck     kind = "SYN and ACK"
	tcpData    kind = "TCP data"
	udpData    kind = "UDP data"
)

// sight is a frame that was received. Its address is the sender; of an advertisement, the target.
type sight struct {
	kind kind
	addr netip.Addr
	at   time.Time
}

// wire sees the frames from the other end of a link.
type wire struct {
	mu    sync.Mutex
	seen  []sight
	added chan struct{} // closed when seen has grown
}

// tapBuffer holds the frames that arrive while the watching process does not run.
const tapBuffer = 16 << 20

// tap watches a device until the test ends.
func tap(t *testing.T, ns netns.NsHandle, name string) *wire {
	t.Helper()
	w := &wire{added: make(chan struct{})}
	l := &lab{t: t}
	c := l.listen(ns, name)
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, tapBuffer) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatalf("a large buffer for frames: %v", err)
	}
	own, _ := c.LocalAddr().(*packet.Addr)
	done := make(chan struct{})
	t.Cleanup(func() {
		if s, err := c.Stats(); err != nil || s.Drops > 0 {
			t.Errorf("%d frames went by unseen (%v), which says nothing of what was sent", s.Drops, err)
		}
		c.Close()
		<-done
	})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, _, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			at := time.Now()
			if n < 14 || slices.Equal(b[6:12], own.HardwareAddr) { // sent from here
				continue
			}
			if k, a, ok := parse(b[:n]); ok {
				w.mu.Lock()
				w.seen = append(w.seen, sight{k, a, at})
				close(w.added)
				w.added = make(chan struct{})
				w.mu.Unlock()
			}
		}
	}()
	return w
}

// parse returns what a frame is.
func parse(b []byte) (kind, netip.Addr, bool) {
	p := b[14:]
	switch binary.BigEndian.Uint16(b[12:]) {
	case unix.ETH_P_ARP:
		k := arpRequest
		if p[7] == 2 {
			k = arpReply
		}
		return k, netip.AddrFrom4([4]byte(p[14:18])), true
	case unix.ETH_P_IP:
		return parseTransport(p[9], netip.AddrFrom4([4]byte(p[12:16])), p[20:binary.BigEndian.Uint16(p[2:])])
	case unix.ETH_P_IPV6:
		return parseTransport(p[6], netip.AddrFrom16([16]byte(p[8:24])), p[40:])
	}
	return "", netip.Addr{}, false
}

func parseTransport(protocol byte, from netip.Addr, p []byte) (kind, netip.Addr, bool) {
	switch {
	case protocol == unix.IPPROTO_UDP:
		return udpData, from, true
	case protocol == unix.IPPROTO_TCP && p[13]&0x12 == 0x12:
		return synAck, from, true
	case protocol == unix.IPPROTO_TCP && len(p) > int(p[12]>>4)*4:
		return tcpData, from, true
	case protocol == unix.IPPROTO_ICMPV6 && p[0] == neighbourSolicitation:
		return ndSolicit, from, true
	case protocol == unix.IPPROTO_ICMPV6 && p[0] == neighbourAdvertisement:
		return ndAdvert, netip.AddrFrom16([16]byte(p[8:24])), true
	}
	return "", netip.Addr{}, false
}

// forget makes the wire forget what it has seen.
func (w *wire) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = nil
}

// sights returns when such frames were seen.
func (w *wire) sights(k kind, a netip.Addr) (at []time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.seen {
		if s.kind == k && s.addr == a {
			at = append(at, s.at)
		}
	}
	return at
}

// wait waits until n such frames have been seen, and reports whether they were.
func (w *wire) wait(k kind, a netip.Addr, n int, limit time.Duration) bool {
	timeout := time.After(limit)
	for {
		w.mu.Lock()
		added := w.added
		w.mu.Unlock()
		if len(w.sights(k, a)) >= n {
			return true
		}
		select {
		case <-added:
		case <-timeout:
			return false
		}
	}
}

func broadcast() net.HardwareAddr { return net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// arpFrame makes an ARP frame.
func arpFrame(op byte, to, from net.HardwareAddr, sender, target netip.Addr) []byte {
	b := slices.Concat(to, from, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, op}, from, sender.AsSlice(), make([]byte, 6), target.AsSlice())
	return append(b, make([]byte, 60-len(b))...)
}

// ndFrame makes a solicitation or an advertisement.
func ndFrame(typ byte, from net.HardwareAddr, src, dst, target netip.Addr) []byte {
	to := net.HardwareAddr(slices.Concat([]byte{0x33, 0x33}, dst.AsSlice()[12:]))
	option := byte(1) // source link-layer address
	flags := byte(0)
	if typ == neighbourAdvertisement {
		option, flags = 2, 0x20 // target link-layer address; override
	}
	body := slices.Concat([]byte{typ, 0, 0, 0, flags, 0, 0, 0}, target.AsSlice())
	if !src.IsUnspecified() {
		body = slices.Concat(body, []byte{option, 1}, from)
	}
	binary.BigEndian.PutUint16(body[2:], checksum(src, dst, unix.IPPROTO_ICMPV6, body))
	head := []byte{0x60, 0, 0, 0, 0, byte(len(body)), unix.IPPROTO_ICMPV6, 255}
	return slices.Concat(to, from, []byte{0x86, 0xdd}, head, src.AsSlice(), dst.AsSlice(), body)
}

// solicitedNode returns the solicited-node group of a.
func solicitedNode(a netip.Addr) netip.Addr {
	g := netip.MustParseAddr("ff02::1:ff00:0").As16()
	own := a.As16()
	copy(g[13:], own[13:])
	return netip.AddrFrom16(g)
}

func checksum(src, dst netip.Addr, protocol byte, body []byte) uint16 {
	b := slices.Concat(src.AsSlice(), dst.AsSlice(), []byte{0, 0, 0, byte(len(body)), 0, 0, 0, protocol}, body)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	sum := uint32(0)
	for ; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// ask sends a question for the hardware address of a, as the peer's kernel would. It returns the
// kind of an answer.
func (l *lab) ask(a netip.Addr) kind {
	l.t.Helper()
	if a.Is4() {
		send(l.t, l.sender, arpFrame(1, broadcast(), l.peerMAC, v4().peer, a))
		return arpReply
	}
	send(l.t, l.sender, ndFrame(neighbourSolicitation, l.peerMAC, v6().peer, solicitedNode(a), a))
	return ndAdvert
}
