package vip

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/netlab"
)

// lateTest has a process of the test's binary be the program of TestLateGuard, in a network namespace of its own.
const lateTest = "VIP_TEST_LATE_GUARD"

// lateGuard puts an address there without a guard, and then has one started for another, which does not come.
func lateGuard(ctx context.Context) error {
	const name = "vip0"
	const peer = "vip1"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}); err != nil {
		return fmt.Errorf("make an interface: %w", err)
	}
	for _, n := range []string{peer, name} {
		l, err := netlink.LinkByName(n)
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			return fmt.Errorf("raise %s: %w", n, err)
		}
	}
	unit := func(addr string, bare bool) Unit {
		return Unit{Name: addr, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}, Interface: name, NoGuard: bare, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	}
	first, err := kernel{}.Attach(ctx, unit("192.0.2.1/24", true))
	if err != nil {
		return err
	}
	if err := first.Bind(ctx, Grant{Fence: 1, Until: time.Now().Add(time.Hour), Will: func() []byte { return nil }}); err != nil {
		return err
	}
	if _, err := (kernel{}).Attach(ctx, unit("192.0.2.2/24", false)); err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}

// A guard that is started when addresses are there already takes these away too, before the table that keeps them silent.
func TestLateGuard(t *testing.T) {
	if os.Getenv(lateTest) != "" {
		t.Fatal(lateGuard(t.Context()))
	}
	if err := netlab.Available(); err != nil {
		t.Skip(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestLateGuard$")
	cmd.Env = append(os.Environ(), lateTest+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("a network namespace cannot be had here: %v", err)
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	ns, failed := netns.GetFromPid(cmd.Process.Pid)
	if failed != nil {
		t.Fatal(failed)
	}
	defer ns.Close()
	cmd.Process.Kill()
	if cmd.Wait(); err != nil || said != "ready\n" {
		t.Fatalf("the program says %q, %v", said, err)
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	l, err := h.LinkByName("vip0")
	if err != nil {
		t.Fatal(err)
	}
	tick, end := time.NewTicker(10*time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for {
		addrs, err := h.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			t.Fatal(err)
		}
		if len(addrs) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%v is still there, and nothing keeps it silent", addrs[0])
		}
	}
}
