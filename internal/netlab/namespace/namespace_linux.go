package namespace

import (
	"errors"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace.
type Namespace struct {
	// NS is its file descriptor.
	NS netns.NsHandle
	// Handle configures its links and addresses.
	Handle *netlink.Handle
}

// New makes a namespace whose loopback interface is up.
func New() (*Namespace, error) {
	ns, err := create()
	if err != nil {
		return nil, err
	}
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	n := &Namespace{NS: ns, Handle: handle}
	lo, err := handle.LinkByName("lo")
	if err == nil {
		err = handle.LinkSetUp(lo)
	}
	if err == nil {
		err = n.Do(setSysctls)
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// Close releases the namespace. It vanishes when no process and no socket is in it.
func (n *Namespace) Close() error {
	n.Handle.Close()
	return n.NS.Close()
}

// Do runs f on a thread that is in the namespace. Sockets that f opens stay in the namespace.
// Goroutines that f starts are not in it.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		if err := netns.Set(n.NS); err != nil {
			done <- err
			return
		}
		err = f()
		// A thread that cannot return stays locked, and ends with this goroutine.
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// create makes a namespace that lasts while somebody holds it.
func create() (netns.NsHandle, error) {
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

// setSysctls gives the namespace of the calling thread the settings of an ordinary host. A new
// namespace copies the machine's settings for IPv4. A machine with containers forwards packets, and
// a node that has lost an address would then queue what still arrives for it.
func setSysctls() error {
	settings := [][2]string{
		{"net/ipv4/ip_forward", "0"},          // first: it resets others
		{"net/ipv6/conf/all/accept_dad", "0"}, // a host's own addresses are usable at once
	}
	names := []string{
		"rp_filter", "arp_ignore", "arp_announce", "arp_filter", "arp_accept", "arp_notify", "proxy_arp",
		"promote_secondaries",
	}
	for _, conf := range []string{"all", "default"} {
		for _, name := range names {
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
