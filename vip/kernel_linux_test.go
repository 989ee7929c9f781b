package vip_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/netlab/labnode"
	"github.com/flotilla-ha/flotilla/vip"
)

// An address that somebody removes while it is held, and a table that somebody flushes, are
// restored.
func TestMeddling(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	s := newSite(t, 1, labnode.Cluster{Units: units(1)})
	s.owners("at first", nil)
	node := s.lab.Nodes[0]
	for _, a := range s.addrs {
		s.must(node.DelAddr(netip.PrefixFrom(a, a.BitLen())))
		s.poll(fmt.Sprintf("%v is back", a), func() bool {
			return len(s.watch.Owners(a)) == 1 && len(s.watch.History(a)) == 2
		})
	}
	tables := func(do func(c *nftables.Conn) error) (n int) {
		t.Helper()
		s.must(node.Do(func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			if do != nil {
				return do(c)
			}
			all, err := c.ListTables()
			n = len(all)
			return err
		}))
		return n
	}
	if n := tables(nil); n != 1 {
		t.Errorf("%d tables, want the program's one", n)
	}
	tables(func(c *nftables.Conn) error {
		c.FlushRuleset()
		return c.Flush()
	})
	s.poll("the fence is back", func() bool { return tables(nil) == 1 })
	s.owners("afterwards", nil)
	s.must(s.procs[0].Kill(syscall.SIGTERM))
	s.must(s.procs[0].Wait())
	if n := tables(nil); n != 0 {
		t.Errorf("%d tables are left behind", n)
	}
	if left, err := node.Processes(); err != nil || len(left) > 0 {
		t.Errorf("processes %v are left behind, %v", left, err)
	}
}

// Run does not touch an address that somebody else has configured, and says so.
func TestConfiguredByHand(t *testing.T) {
	t.Parallel() // it waits, and has hosts of its own
	s := newSite(t, 1, labnode.Cluster{Units: units(1)})
	s.owners("at first", nil)
	s.must(s.procs[0].Kill(syscall.SIGTERM))
	s.must(s.procs[0].Wait())
	s.must(s.lab.Nodes[0].AddAddr(netip.MustParsePrefix("10.77.0.51/24")))
	s.start(0)
	// It should end by itself.
	late := time.AfterFunc(time.Minute, func() { s.procs[0].Kill(syscall.SIGKILL) })
	defer late.Stop()
	err := s.procs[0].Wait()
	const want = "vip: vip/10.77.0.51: 10.77.0.51/24 is configured on eth0, and not by this program"
	// any error: the output says why the program ended
	if err == nil || !strings.Contains(s.procs[0].Output(), want) {
		t.Errorf("ended with %v; want it to say %q", err, want)
	}
	if len(s.watch.Owners(s.addrs[0])) != 1 {
		t.Error("the address that was configured by hand is gone")
	}
}

// withoutRights is the program of TestNoRights. Rights belong to threads. One thread drops them for
// good and then executes the program again: all of its threads lack them then.
func withoutRights() error {
	runtime.LockOSThread()
	if has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_NET_ADMIN, 0, 0, 0); err != nil {
		return err
	} else if has == 1 && os.Geteuid() == 0 {
		for _, right := range []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW} {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, right, 0, 0, 0); err != nil {
				return err
			}
		}
		return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	node, err := flotilla.Open(context.Background(), flotilla.Config{})
	if err != nil {
		return err
	}
	defer node.Close()
	return vip.Run(context.Background(), node, vip.Config{Addr: netip.MustParsePrefix("192.0.2.1/24")})
}

// A program without the necessary rights gets an error at once, which names the remedy.
func TestNoRights(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), noRights+"=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(string(out), "lacks the capabilities NET_ADMIN and NET_RAW") || !strings.Contains(string(out), "cap_add") && !strings.Contains(string(out), "--cap-add") {
		t.Errorf("ended with %v, and said %q", err, out)
	}
}
