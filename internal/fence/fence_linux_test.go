package fence

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// lateness is how long after the end of a lease an answer may be seen on a busy machine. The
// figures in the log show that it is usually not late at all.
const lateness = 25 * time.Millisecond

const answerTime = 5 * time.Second // for an answer that must come

// long is a lease longer than any test.
func long() time.Time { return time.Now().Add(time.Hour) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestEnds measures when the kernel closes an address: at the end of the lease, and at the limit of
// a state.
func TestEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	l := newLab(t)
	fence := l.open("ends", v4().addr, v6().addr)
	const span = 150 * time.Millisecond
	for _, tt := range []struct {
		name  string
		begin func(until time.Time) error
	}{
		{"lease", func(until time.Time) error {
			if err := fence.Set(Serving, 0, v4().addr, v6().addr); err != nil {
				return err
			}
			return fence.Extend(until)
		}},
		{"limit", func(until time.Time) error {
			if err := fence.Extend(long()); err != nil {
				return err
			}
			return fence.Set(Serving, time.Until(until), v4().addr, v6().addr)
		}},
	} {
		for _, f := range []family{v4(), v6()} {
			t.Run(tt.name+" of "+f.addr.String(), func(t *testing.T) {
				l.t = t
				l.wire.forget()
				until := time.Now().Add(span)
				must(t, tt.begin(until))
				l.questions(f.addr, until.Add(4*lateness))
				l.evaluate(f.addr, until)
			})
		}
	}
}

// questions asks for a every millisecond until a time.
func (l *lab) questions(a netip.Addr, until time.Time) {
	l.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(until) {
		l.ask(a)
		<-tick.C
	}
}

// evaluate checks when a fell silent.
func (l *lab) evaluate(a netip.Addr, until time.Time) {
	l.t.Helper()
	k := arpReply
	if a.Is6() {
		k = ndAdvert
	}
	at := l.wire.sights(k, a)
	if len(at) == 0 {
		l.t.Fatal("there was no answer at all")
	}
	late := at[len(at)-1].Sub(until)
	l.t.Logf("%d answers, the last %v after the end", len(at), late)
	if late > lateness {
		l.t.Errorf("the last answer came %v after the end", late)
	}
	if late < -10*lateness {
		l.t.Errorf("the last answer came %v before the end", -late)
	}
}

// TestExtend extends a lease many times while questions are asked. All of them are answered.
func TestExtend(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	l := newLab(t)
	fence := l.open("extend", v4().addr)
	must(t, fence.Set(Serving, 0, v4().addr))
	must(t, fence.Extend(long()))
	for i := range 500 {
		l.ask(v4().addr)
		must(t, fence.Extend(time.Now().Add(10*time.Second)))
		l.ask(v4().addr)
		must(t, fence.Set(Serving, time.Duration(i%2)*10*time.Second, v4().addr))
	}
	if !l.wire.wait(arpReply, v4().addr, 1000, answerTime) {
		t.Errorf("of 1000 questions, %d were answered", len(l.wire.sights(arpReply, v4().addr)))
	}
	must(t, fence.Extend(time.Now()))
	l.want(false, arpReply, v4(), func(a netip.Addr) { l.ask(a) })
	// Less than a millisecond would be a timeout of 0, which for the kernel means none.
	must(t, fence.Extend(time.Now().Add(slack+time.Millisecond/2)))
	l.want(false, arpReply, v4(), func(a netip.Addr) { l.ask(a) })
}

// TestExtendAfterAnError makes the kernel refuse a lease. A table that is rebuilt then has the
// shorter of the two leases.
func TestExtendAfterAnError(t *testing.T) {
	l := newLab(t)
	fence := l.open("error", v4().addr)
	now := time.Now()
	must(t, fence.Extend(now.Add(time.Minute)))
	must(t, fence.link.ask(func(c *nftables.Conn) error {
		c.DelTable(fence.layout.table)
		return c.Flush()
	}))
	for _, step := range []struct{ asked, want time.Duration }{{time.Hour, time.Minute}, {time.Second, time.Second}, {time.Minute, time.Second}} {
		if err := fence.Extend(now.Add(step.asked)); !errors.Is(err, syscall.ENOENT) {
			t.Fatalf("a lease in a table that is not there: %v", err)
		}
		if got := fence.until.Sub(now); got != step.want {
			t.Errorf("after a lease of %v was refused a table that is made anew has one of %v, want %v", step.asked, got, step.want)
		}
	}
}

// TestLimitsAreTheKernels does nothing after it has set a limit: the kernel ends it.
func TestLimitsAreTheKernels(t *testing.T) {
	l := newLab(t)
	fence := l.open("limits", v4().addr)
	must(t, fence.Extend(long()))
	must(t, fence.Set(Serving, time.Hour, v4().addr))
	must(t, fence.link.ask(func(c *nftables.Conn) error {
		for _, id := range []uint32{setPass4, setNew4, setAnswer4} {
			set := fence.layout.sets[id]
			elements, err := c.GetSetElements(set)
			if err != nil {
				return err
			}
			if len(elements) != 1 || elements[0].Timeout < time.Hour-time.Minute || elements[0].Timeout > time.Hour {
				t.Errorf("%s has %+v, want one element that ends in an hour", set.Name, elements)
			}
		}
		return nil
	}))
}

// TestClosedIPv4 reads the rules. Packets would not show that an address lets them in, because its
// answers are fenced too.
func TestClosedIPv4(t *testing.T) {
	l := newLab(t)
	fence := l.open("closed", v4().addr)
	must(t, fence.Extend(long()))
	must(t, fence.link.ask(func(c *nftables.Conn) error {
		for _, chain := range []string{"ip_in", "ip_out"} {
			rules, err := c.GetRules(fence.layout.table, &nftables.Chain{Name: chain})
			if err != nil {
				return err
			}
			looks := func(r *nftables.Rule) bool {
				return slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
					look, ok := e.(*expr.Lookup)
					return ok && look.SetName == fence.layout.sets[setPass4].Name && look.Invert
				})
			}
			if !slices.ContainsFunc(rules, looks) {
				t.Errorf("%s lets all through to an address that is closed", chain)
			}
		}
		return nil
	}))
}

// TestStandstillInTransaction makes the process stand still between the reading of the clock and
// the system call.
func TestStandstillInTransaction(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	l := newLab(t)
	fence := l.open("standstill", v4().addr)
	must(t, fence.Set(Serving, 0, v4().addr))
	for _, tt := range []struct {
		name  string
		lease time.Duration
		runs  int
	}{
		{"within the lease", time.Hour, 2},
		{"past the lease", 20 * time.Millisecond, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l.t = t
			until := time.Now().Add(tt.lease)
			runs, timeouts := 0, []time.Duration(nil)
			must(t, fence.link.transact(func(c *nftables.Conn, at *instant) error {
				c.FlushSet(fence.layout.sets[setLease])
				if err := fence.layout.fillLease(c, until, at); err != nil {
					return err
				}
				timeouts = append(timeouts, until.Sub(at.now))
				if runs++; runs == 1 {
					<-time.After(50 * time.Millisecond)
				}
				return nil
			}))
			if runs < tt.runs || timeouts[runs-1] > tt.lease-50*time.Millisecond {
				t.Errorf("%d runs, with %v left", runs, timeouts)
			}
			l.want(tt.lease > time.Second, arpReply, v4(), func(a netip.Addr) { l.ask(a) })
		})
	}
}

// TestOthersOwn makes the peer own the address. The node is its client.
func TestOthersOwn(t *testing.T) {
	l := newLab(t)
	for _, f := range []family{v4(), v6()} {
		t.Run(f.addr.String(), func(t *testing.T) {
			l.t = t
			fence := l.open("others", f.addr)
			node, err := l.nodeAt.LinkByName(nodeDevice)
			must(t, err)
			peer, err := l.peerAt.LinkByName(peerDevice)
			must(t, err)
			host := netip.PrefixFrom(f.addr, f.addr.BitLen())
			must(t, l.nodeAt.AddrDel(node, address(host)))
			must(t, l.peerAt.NeighDel(l.neighbour(l.peerAt, peerDevice, f.addr, l.nodeMAC, netlink.NUD_PERMANENT)))
			must(t, l.peerAt.AddrAdd(peer, address(host)))

			// It asks for it and talks to it.
			var listener net.Listener
			within(t, l.peer, func() (err error) {
				listener, err = net.Listen("tcp", netip.AddrPortFrom(f.addr, tcpPort).String())
				return err
			})
			defer listener.Close()
			within(t, l.node, func() error {
				d := net.Dialer{Timeout: answerTime}
				c, err := d.Dial("tcp", listener.Addr().String())
				if err != nil {
					return err
				}
				return c.Close()
			})

			// It learns from an announcement where the address is.
			wrong := net.HardwareAddr{2, 0, 0, 0, 0, 9}
			must(t, l.nodeAt.NeighSet(l.neighbour(l.nodeAt, nodeDevice, f.addr, wrong, netlink.NUD_REACHABLE)))
			l.announce(l.sender, l.peerMAC, f.addr)
			eventually(t, "the neighbour cache has the peer", func() bool {
				neighbours, err := l.nodeAt.NeighList(node.Attrs().Index, 0)
				must(t, err)
				return slices.ContainsFunc(neighbours, func(n netlink.Neigh) bool {
					return n.IP.Equal(f.addr.AsSlice()) && slices.Equal(n.HardwareAddr, l.peerMAC)
				})
			})
			must(t, fence.Check())
		})
	}
}

// eventually waits until ok returns true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	timeout, tick := time.After(answerTime), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("it did not come about that %s", what)
		}
	}
}

// TestDevices removes the interface, puts it back and renames it.
func TestDevices(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	l := newLab(t)
	fence := l.open("devices", v4().addr)
	ask := func(a netip.Addr) { l.ask(a) }
	must(t, fence.Extend(long()))
	must(t, fence.Check())

	l.unplug()
	if err := fence.Check(); !errors.Is(err, ErrTampered) {
		t.Errorf("the interface is gone, and Check says: %v", err)
	}
	l.plug()
	if err := fence.Check(); !errors.Is(err, ErrTampered) {
		t.Errorf("the interface is another, and Check says: %v", err)
	}
	must(t, fence.Guard(nodeDevice))
	must(t, fence.Check())
	l.want(false, arpReply, v4(), ask)
	must(t, fence.Set(Serving, 0, v4().addr))
	l.want(true, arpReply, v4(), ask)
	must(t, fence.Set(Closed, 0, v4().addr))

	link, err := l.nodeAt.LinkByName(nodeDevice)
	must(t, err)
	must(t, l.nodeAt.LinkSetName(link, "renamed0"))
	err = fence.Check()
	if !errors.Is(err, ErrTampered) {
		t.Errorf("the interface has another name, and Check says: %v", err)
	}
	t.Log(err)
	for _, mend := range []struct {
		name string
		do   func() error
	}{
		{"restore", fence.Restore},
		{"guard by the present name", func() error { return fence.Guard("renamed0", v6().addr) }},
	} {
		must(t, mend.do())
		must(t, fence.Check())
		l.want(false, arpReply, v4(), ask)
	}
	l.want(false, ndAdvert, v6(), ask)
	if diff := cmp.Diff([]netip.Addr{v4().addr, v6().addr}, fence.Guarded(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if err := fence.Guard("nowhere0", v4().addr); !errors.Is(err, unix.ENODEV) {
		t.Errorf("an interface that is not there is guarded: %v", err)
	}
	must(t, fence.Check())
	must(t, fence.Unguard(v4().addr))
	l.want(true, arpReply, v4(), ask)
	l.want(false, ndAdvert, v6(), ask)
}

// TestTampered changes the table from outside.
func TestTampered(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("nft, which plays the somebody, is not installed")
	}
	l := newLab(t)
	fence := l.open("tampered", v4().addr, v6().addr)
	must(t, fence.Extend(long()))
	must(t, fence.Set(Serving, 0, v4().addr))
	link, err := l.nodeAt.LinkByName(nodeDevice)
	must(t, err)
	hook := fmt.Sprintf("ingress_%d_%s", link.Attrs().Index, nodeDevice)
	for _, tt := range []struct {
		name, command string
	}{
		{"everything is flushed", "flush ruleset"},
		{"the table is deleted", "delete table netdev flotilla-tampered"},
		{"a chain is flushed", "flush chain netdev flotilla-tampered arp_in"},
		{"a hook is removed", "flush chain netdev flotilla-tampered " + hook + "; delete chain netdev flotilla-tampered " + hook},
		{"a rule is added", "add rule netdev flotilla-tampered in accept"},
		{"an address is taken out", "flush set netdev flotilla-tampered guarded4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l.t = t
			must(t, fence.Check())
			must(t, fence.Extend(long())) // our own changes do not hide those of others
			within(t, l.node, func() error {
				if out, err := exec.Command(nft, tt.command).CombinedOutput(); err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			})
			err := fence.Check()
			if !errors.Is(err, ErrTampered) {
				t.Errorf("Check says: %v", err)
			}
			t.Log(err)
			if strings.HasPrefix(tt.name, "the table") {
				if err := fence.Extend(long()); !errors.Is(err, ErrTampered) {
					t.Errorf("Extend says: %v", err)
				}
			}
			must(t, fence.Restore())
			must(t, fence.Check())
			l.want(true, arpReply, v4(), func(a netip.Addr) { l.ask(a) })
			l.want(false, ndAdvert, v6(), func(a netip.Addr) { l.ask(a) })
		})
	}
}

// TestPrograms has two programs on one interface. One of them starts again.
func TestPrograms(t *testing.T) {
	l := newLab(t)
	ask := func(a netip.Addr) { l.ask(a) }
	one := l.open("one", v4().addr)
	two := l.open("two", v4().other)
	other := v4()
	other.addr = v4().other
	must(t, one.Set(Serving, 0, v4().addr))
	must(t, two.Set(Serving, 0, v4().other))
	must(t, one.Extend(long()))
	l.want(true, arpReply, v4(), ask)
	l.want(false, arpReply, other, ask)
	must(t, two.Extend(long()))
	must(t, one.Extend(time.Now()))
	l.want(false, arpReply, v4(), ask)
	l.want(true, arpReply, other, ask)
	must(t, one.Check())
	must(t, two.Check())

	// The first program starts again, over what it has left.
	must(t, one.Extend(long()))
	l.want(true, arpReply, v4(), ask)
	again := openAt(t, l.node, "one")
	if diff := cmp.Diff([]string{v4().addr.String()}, texts(again.Guarded())); diff != "" {
		t.Error(diff)
	}
	must(t, again.Check())
	must(t, again.Extend(long()))
	l.want(false, arpReply, v4(), ask)
	if err := one.Check(); !errors.Is(err, ErrTampered) {
		t.Errorf("the first life's table is gone, and Check says: %v", err)
	}
	must(t, again.Set(Serving, 0, v4().addr))
	l.want(true, arpReply, v4(), ask)
	must(t, again.Set(Closed, 0, v4().addr))
	must(t, remove("one", int(l.node)))
	must(t, remove("one", int(l.node)))
	l.want(true, arpReply, v4(), ask)
	l.want(true, arpReply, other, ask)
	must(t, two.Close())
	must(t, two.Close())
	if err := two.Extend(long()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed fence extends: %v", err)
	}
}

func texts(addrs []netip.Addr) (s []string) {
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return s
}

// TestGuardedWhere guards an address on one interface but not on another.
func TestGuardedWhere(t *testing.T) {
	l := newLab(t)
	must(t, l.nodeAt.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "elsewhere0"}, PeerName: "elsewhere1"}))
	fence := openAt(t, l.node, "where")
	must(t, fence.Guard("elsewhere0", v4().addr))
	must(t, fence.Guard(nodeDevice, v4().other))
	must(t, fence.Check())
	other := v4()
	other.addr = v4().other
	l.want(true, arpReply, v4(), func(a netip.Addr) { l.ask(a) })
	l.want(false, arpReply, other, func(a netip.Addr) { l.ask(a) })
	must(t, fence.Guard(nodeDevice, v4().addr))
	must(t, fence.Check())
	l.want(false, arpReply, v4(), func(a netip.Addr) { l.ask(a) })
}

func TestMistakes(t *testing.T) {
	l := newLab(t)
	fence := l.open("mistakes", v4().addr)
	if err := fence.Set(Serving, 0, v4().addr, v4().other); !errors.Is(err, ErrNotGuarded) {
		t.Errorf("an address that nobody guards is set: %v", err)
	}
	must(t, fence.Extend(long()))
	l.want(false, arpReply, v4(), func(a netip.Addr) { l.ask(a) })
	for want, err := range map[string]error{
		"the zero address cannot be guarded":            fence.Guard(nodeDevice, netip.Addr{}),
		"there is no state 4":                           fence.Set(Muted+1, 0, v4().addr),
		"is below 0":                                    fence.Set(Serving, -1, v4().addr),
		`interface "a name that is much too long": inv`: fence.Guard("a name that is much too long", v4().addr),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q in it", err, want)
		}
	}
	for _, name := range []string{"", "a b", "a/b", "ä", strings.Repeat("a", maxName+1)} {
		if _, err := open(name, int(l.node)); err == nil || !strings.Contains(err.Error(), "the name of a fence has") {
			t.Errorf("the name %q is taken: %v", name, err)
		}
	}
	// An IPv4 address may be written as an IPv6 one.
	must(t, fence.Set(Serving, 0, netip.AddrFrom16(v4().addr.As16())))
	l.want(true, arpReply, v4(), func(a netip.Addr) { l.ask(a) })
}

// TestNoRight calls Open on a thread without NET_ADMIN.
func TestNoRight(t *testing.T) {
	l := newLab(t)
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		result <- func() error {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var data [2]unix.CapUserData
			if err := unix.Setns(int(l.node), unix.CLONE_NEWNET); err != nil {
				return err
			}
			if err := unix.Capget(&header, &data[0]); err != nil {
				return err
			}
			data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
			if err := unix.Capset(&header, &data[0]); err != nil {
				return err
			}
			f, err := Open("noright")
			if err == nil {
				f.Close()
			}
			return err
		}()
	}()
	err := <-result
	t.Log(err)
	if !errors.Is(err, ErrUnsupported) || !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "NET_ADMIN") {
		t.Errorf("got %v", err)
	}
}
