package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Available says in one sentence why there can be no laboratory here; nil if there can.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("a laboratory of network namespaces needs root")
	}
	ns, err := newNamespace()
	if err != nil {
		return fmt.Errorf("a laboratory of network namespaces needs leave to make one: %w", err)
	}
	return ns.Close()
}

// Lab is a few hosts and the bridge that joins them.
type Lab struct {
	// Nodes run what is tested.
	Nodes []*Host
	// Clients watch: their instruments run in the test's own process.
	Clients []*Host

	bridge  *site
	groups  *groups
	filters *filters

	mu      sync.Mutex
	net     network   // as it is
	history []network // as it was, the present included, oldest first
}

// Host is a network namespace with one interface.
type Host struct {
	// Name says which host it is: "node0", "client1".
	Name string
	// Addr4 is its own IPv4 address.
	Addr4 netip.Addr
	// Addr6 is its own IPv6 address.
	Addr6 netip.Addr
	// MAC is the hardware address of its interface.
	MAC net.HardwareAddr

	lab   *Lab
	index int   // in hosts()
	site  *site // its own namespace
	port  netlink.Link
	eth   netlink.Link
	group group

	mu        sync.Mutex
	processes []*Process
}

// Interface is the name of every host's interface.
const Interface = "eth0"

// New makes a lab of that many nodes and clients. It takes some tens of milliseconds.
func New(nodes, clients int) (*Lab, error) { return newLab(nodes, clients, 0) }

// newLab makes a lab with a certain freezer; 0 is the best there is.
func newLab(nodes, clients int, freezer Freezer) (*Lab, error) {
	if nodes < 0 || clients < 0 || nodes+clients == 0 || nodes > 80 || clients > 80 {
		return nil, fmt.Errorf("%d nodes and %d clients make no lab", nodes, clients)
	}
	groups, err := newGroups(freezer)
	if err != nil {
		return nil, err
	}
	l := &Lab{groups: groups}
	if err := l.build(nodes, clients); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(nodes, clients int) (err error) {
	if l.bridge, err = newSite(); err != nil {
		return err
	}
	br, err := l.bridge.addBridge()
	if err != nil {
		return err
	}
	for i := range nodes {
		if err := l.addHost(br, &Host{Name: fmt.Sprint("node", i)}, 11+i); err != nil {
			return err
		}
	}
	for i := range clients {
		if err := l.addHost(br, &Host{Name: fmt.Sprint("client", i)}, 101+i); err != nil {
			return err
		}
	}
	for _, h := range l.hosts() {
		if err := h.awaitLink(); err != nil {
			return err
		}
	}
	if l.filters, err = newFilters(l.bridge); err != nil {
		return err
	}
	l.net = newNetwork(nodes + clients)
	l.history = []network{l.net.clone()}
	return nil
}

// addHost makes the host whose addresses end in number.
func (l *Lab) addHost(bridge netlink.Link, h *Host, number int) error {
	h.lab, h.index = l, len(l.Nodes)+len(l.Clients)
	h.Addr4 = netip.AddrFrom4([4]byte{10, 77, 0, byte(number)})
	h.Addr6 = netip.MustParseAddr(fmt.Sprintf("fd77::%d", number))
	h.MAC = net.HardwareAddr{0x02, 0x4e, 0x4c, 0, 0, byte(number)}
	var err error
	if h.site, err = newSite(); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	if h.Name[0] == 'n' {
		l.Nodes = append(l.Nodes, h)
	} else {
		l.Clients = append(l.Clients, h)
	}
	if err := h.connect(bridge); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	if h.group, err = l.groups.add(h.Name); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return nil
}

// hosts returns nodes, then clients.
func (l *Lab) hosts() []*Host {
	return append(append([]*Host(nil), l.Nodes...), l.Clients...)
}

// byMAC returns the name of the host with the hardware address; the address itself if it is nobody's.
func (l *Lab) byMAC(mac hardware) string {
	for _, h := range l.hosts() {
		if hardware(h.MAC) == mac {
			return h.Name
		}
	}
	return net.HardwareAddr(mac[:]).String()
}

// Close kills every process that was started in the lab and what descends from it, waits for them, and removes all else. Watchers and
// probes are to be closed before.
func (l *Lab) Close() error {
	var errs []error
	for _, h := range l.hosts() {
		errs = append(errs, h.close())
	}
	if l.filters != nil {
		errs = append(errs, l.filters.close())
	}
	if l.bridge != nil {
		errs = append(errs, l.bridge.close())
	}
	return errors.Join(errs...)
}

func (h *Host) close() error {
	var errs []error
	if h.group != nil {
		errs = append(errs, h.group.remove())
	}
	h.mu.Lock()
	processes := h.processes
	h.mu.Unlock()
	for _, p := range processes {
		<-p.done
		errs = append(errs, p.log.Close())
	}
	return errors.Join(append(errs, h.site.close())...)
}

// Do runs f on a thread that is in the host's namespace: sockets that f opens are the host's for good. Goroutines that f starts are not
// in the namespace.
func (h *Host) Do(f func() error) error { return h.site.do(f) }

// site is a namespace and a netlink handle into it.
type site struct {
	ns     netns.NsHandle
	handle *netlink.Handle
}

func newSite() (*site, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, err
	}
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		ns.Close()
		return nil, err
	}
	s := &site{ns: ns, handle: handle}
	lo, err := handle.LinkByName("lo")
	if err == nil {
		err = handle.LinkSetUp(lo)
	}
	if err == nil {
		err = s.do(setSysctls)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// newNamespace makes a namespace that lasts as long as somebody holds it.
func newNamespace() (netns.NsHandle, error) {
	type result struct {
		ns  netns.NsHandle
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{netns.None(), err}
			return
		}
		ns, err := netns.Get()
		made <- result{ns, err}
	}()
	r := <-made
	return r.ns, r.err
}

func (s *site) close() error {
	s.handle.Close()
	return s.ns.Close()
}

// do runs f on a thread that is in the namespace, which ends after it.
func (s *site) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		if err := netns.Set(s.ns); err != nil {
			done <- err
			return
		}
		err = f()
		// A thread that cannot go home stays locked, and ends with this goroutine.
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// setSysctls gives the calling thread's namespace, whose settings of IPv4 are copies of the machine's, those of an ordinary host: a
// machine with containers forwards, and then a node that has lost an address queues what still comes for it.
func setSysctls() error {
	settings := [][2]string{
		{"net/ipv4/ip_forward", "0"},          // first: it resets others
		{"net/ipv6/conf/all/accept_dad", "0"}, // a lab's own addresses are usable at once
	}
	for _, conf := range []string{"all", "default"} {
		for _, name := range []string{"rp_filter", "arp_ignore", "arp_announce", "arp_filter", "arp_accept", "arp_notify", "proxy_arp", "promote_secondaries"} {
			settings = append(settings, [2]string{"net/ipv4/conf/" + conf + "/" + name, "0"})
		}
	}
	for _, s := range settings {
		if err := os.WriteFile("/proc/sys/"+s[0], []byte(s[1]), 0); err != nil {
			return err
		}
	}
	return nil
}

// poll calls f until it returns true, at most that long.
func poll(atMost time.Duration, f func() bool) bool {
	for end := time.Now().Add(atMost); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
