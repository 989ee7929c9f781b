package vip

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/netlab"
)

// aloneTest makes a process of the test binary the program of a test, in a network namespace of its
// own.
const aloneTest = "VIP_TEST_ALONE"

// vip0 creates the interface of such a program. It returns a function that makes a unit for it.
func vip0() (func(addr string, bare bool) Unit, error) {
	const name = "vip0"
	const peer = "vip1"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}); err != nil {
		return nil, fmt.Errorf("make an interface: %w", err)
	}
	for _, n := range []string{peer, name} {
		l, err := netlink.LinkByName(n)
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			return nil, fmt.Errorf("raise %s: %w", n, err)
		}
	}
	return func(addr string, bare bool) Unit {
		return Unit{Name: addr, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}, Interface: name, NoGuard: bare, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	}, nil
}

// grant lasts long enough for a test.
func grant() Grant {
	return Grant{Fence: 1, Until: time.Now().Add(time.Hour), DeathNotice: func() []byte { return nil }}
}

// alone runs the calling test again in a process and network namespace of its own, where it calls
// program. In the calling process it waits until the program has printed "ready". It returns a
// function that lists the addresses of vip0 there, and the rest of the program's output.
func alone(t *testing.T, program func(ctx context.Context) error) (addrs func() []netlink.Addr, rest *bufio.Reader, cmd *exec.Cmd) {
	t.Helper()
	if os.Getenv(aloneTest) != "" {
		t.Fatal(program(t.Context()))
	}
	if err := netlab.Available(); err != nil {
		t.Skip(err)
	}
	cmd = exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), aloneTest+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("a network namespace cannot be had here: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	rest = bufio.NewReader(out)
	if said, err := rest.ReadString('\n'); err != nil || said != "ready\n" {
		t.Fatalf("the program says %q, %v", said, err)
	}
	ns, err := netns.GetFromPid(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	l, err := h.LinkByName("vip0")
	if err != nil {
		t.Fatal(err)
	}
	return func() []netlink.Addr {
		t.Helper()
		all, err := h.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}, rest, cmd
}

// lateGuard puts an address in place without a guard. Then it attaches a second unit with a guard.
func lateGuard(ctx context.Context) error {
	unit, err := vip0()
	if err != nil {
		return err
	}
	first, err := kernel{}.Attach(ctx, unit("192.0.2.1/24", true))
	if err != nil {
		return err
	}
	if err := first.Bind(ctx, grant()); err != nil {
		return err
	}
	if _, err := (kernel{}).Attach(ctx, unit("192.0.2.2/24", false)); err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}

// A guard that starts when addresses are in place already removes these too, before it removes the
// table that keeps them silent.
func TestLateGuard(t *testing.T) {
	addrs, _, cmd := alone(t, lateGuard)
	cmd.Process.Kill()
	cmd.Wait()
	tick, end := time.NewTicker(10*time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for len(addrs()) > 0 {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%v is still there, and nothing keeps it silent", addrs()[0])
		}
	}
}

// stubborn runs on a kernel without nftables that at some time begins to refuse removals.
func stubborn(ctx context.Context) error {
	unit, err := vip0()
	if err == nil {
		err = netlab.DenyNetlink(unix.NETLINK_NETFILTER, unix.EPROTONOSUPPORT)
	}
	if err != nil {
		return err
	}
	p, err := kernel{}.Attach(ctx, unit("192.0.2.1/24", true))
	if err != nil {
		return err
	}
	if err := p.Bind(ctx, grant()); err != nil {
		return err
	}
	fmt.Println("ready")
	if err := netlab.DenyNetlink(unix.NETLINK_ROUTE, unix.EPERM); err != nil {
		return err
	}
	fmt.Println(p.Unbind())
	select {}
}

// Where nothing else silences an address, Unbind returns only when the address is gone, if
// necessary by the end of its lifetime. The cluster grants the address again after that.
func TestUnbindOutlasts(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits, and has a process of its own
	addrs, rest, _ := alone(t, stubborn)
	if n := len(addrs()); n != 1 {
		t.Fatalf("%d addresses at first", n)
	}
	said, err := rest.ReadString('\n')
	if err != nil || !strings.Contains(said, "operation not permitted") {
		t.Errorf("Unbind returned %q, %v; it should have been refused", said, err)
	}
	if all := addrs(); len(all) > 0 {
		t.Errorf("Unbind has returned, and %v is there", all[0])
	}
}

// overdue creates addresses whose lifetime is over and which the kernel has not removed yet.
func overdue(context.Context) error {
	if _, err := vip0(); err != nil {
		return err
	}
	vip0, err := netlink.LinkByName("vip0")
	if err != nil {
		return err
	}
	for _, prefix := range []string{"192.0.2.1/32", "2001:db8::1/128"} {
		over := false
		for tries := 0; !over; tries++ {
			if tries == 20 {
				return fmt.Errorf("the kernel has always removed %s before its lifetime was seen to be over", prefix)
			}
			if over, err = expire(vip0, netip.MustParsePrefix(prefix)); err != nil {
				return err
			}
		}
	}
	fmt.Println("ready")
	select {}
}

// expire puts an address in place for a second and watches it until it is gone. It reports whether
// the address was still there when its lifetime was over.
func expire(on netlink.Link, prefix netip.Prefix) (over bool, err error) {
	mask := net.CIDRMask(prefix.Bits(), prefix.Bits())
	err = netlink.AddrAdd(on, &netlink.Addr{IPNet: &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: mask}, ValidLft: 1, PreferedLft: 1})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for there := true; there && err == nil; <-tick.C {
		there = false
		err = eachAddr([]netip.Addr{prefix.Addr()}, func(_ netlink.Link, a netlink.Addr, left bool) error {
			there, over = true, over || a.ValidLft == 0
			if !left {
				return fmt.Errorf("%v, with a lifetime of %d s, is taken for somebody else's", prefix, a.ValidLft)
			}
			return nil
		})
	}
	return over, err
}

// An address that a dead program has left is recognized until it is gone. The kernel removes it a
// little after the end of its lifetime, and answers for it until then if its table is gone.
func TestOverdueAddressIsLeft(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits, and has a process of its own
	alone(t, overdue)
}
