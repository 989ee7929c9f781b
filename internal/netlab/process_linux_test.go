package netlab

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/netlab/freezer"
	"github.com/flotilla-ha/flotilla/internal/netlab/poll"
)

// start runs a script in a host.
func start(h *Host, script string) error {
	_, err := h.Start(exec.Command("sh", "-c", script))
	return err
}

// ask returns the name that answers at the address of a host; empty without an answer.
func ask(t *testing.T, from, at *Host) string {
	t.Helper()
	var name string
	must(t, from.Do(func() error {
		conn, err := connect(netip.AddrPortFrom(at.Addr4, Port))
		if err != nil {
			return err
		}
		defer conn.Close()
		name, _ = readAll(conn, time.Second)
		return nil
	}))
	return name
}

func TestRespond(t *testing.T) {
	l := open(t, 2, 1)
	p, err := l.Nodes[1].Respond()
	must(t, err)
	if got := ask(t, l.Clients[0], l.Nodes[1]); got != "node1" {
		t.Errorf("answered by %q", got)
	}
	if got := ask(t, l.Clients[0], l.Nodes[0]); got != "" {
		t.Errorf("answered by %q where nobody listens", got)
	}
	must(t, p.Kill(syscall.SIGTERM))
	if err := p.Wait(); err != nil {
		t.Errorf("ended with %v: %s", err, p.Output())
	}
	if got := ask(t, l.Clients[0], l.Nodes[1]); got != "" {
		t.Errorf("answered by %q after its end", got)
	}
}

func TestStart(t *testing.T) {
	l := open(t, 1, 1)
	before, err := net.Interfaces()
	must(t, err)
	p, err := l.Nodes[0].Start(exec.Command("sh", "-c", "cat /proc/net/dev; echo said >&2; exit 3"))
	must(t, err)
	if err := p.Wait(); err == nil || err.Error() != "exit status 3" {
		t.Errorf("ended with %v", err)
	}
	if out := p.Output(); !strings.Contains(out, "eth0:") || !strings.HasSuffix(out, "said\n") {
		t.Errorf("printed %q", out)
	}
	if after, err := net.Interfaces(); err != nil || len(after) != len(before) {
		t.Errorf("this process has the interfaces %v, before %v", after, before)
	}
	if _, err := l.Nodes[0].Start(exec.Command("/nonexistent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing program was started: %v", err)
	}
}

func TestKill(t *testing.T) {
	l := open(t, 2, 0)
	must(t, start(l.Nodes[0], "sleep 1001 & sleep 1002 & wait"))
	must(t, start(l.Nodes[1], "exec sleep 1001"))
	is := func(arg string) func(Running) bool {
		return func(r Running) bool { return len(r.Args) == 2 && r.Args[1] == arg }
	}
	count := func(h *Host, arg string) (n int) {
		all, err := h.Processes()
		must(t, err)
		for _, r := range all {
			if is(arg)(r) && r.Name == "sleep" {
				n++
			}
		}
		return n
	}
	started := func() bool {
		return count(l.Nodes[0], "1001") == 1 && count(l.Nodes[0], "1002") == 1 && count(l.Nodes[1], "1001") == 1
	}
	if !poll.Until(5*time.Second, started) {
		t.Fatal("the descendants do not start")
	}
	if n, err := l.Nodes[0].Kill(syscall.SIGKILL, is("1001")); n != 1 || err != nil {
		t.Errorf("%d killed, %v", n, err)
	}
	gone := func() bool {
		left, err := l.Nodes[0].Processes() // one that is ending has no arguments any more
		must(t, err)
		return len(left) == 2
	}
	if !poll.Until(5*time.Second, gone) {
		t.Error("it was not killed")
	}
	if count(l.Nodes[0], "1002") != 1 || count(l.Nodes[1], "1001") != 1 {
		t.Error("others were killed too")
	}
	var seen []Running
	all := func(r Running) bool {
		seen = append(seen, r)
		return true
	}
	if n, err := l.Nodes[0].Kill(syscall.SIGKILL, all); n != 2 || err != nil {
		t.Errorf("%d killed, %v; it saw %+v", n, err, seen)
	}
}

// A frozen host does nothing, its grandchildren included. Afterwards it goes on as if nothing had
// happened.
func TestFreeze(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for _, kind := range []freezer.Kind{freezer.CgroupV2, freezer.CgroupV1, freezer.Signals} {
		t.Run(strings.ReplaceAll(kind.String(), " ", "-"), func(t *testing.T) {
			l := openWith(t, 2, 0, kind)
			const tick = "(while :; do echo tick; sleep 0.01; done) & wait"
			p, err := l.Nodes[0].Start(exec.Command("sh", "-c", tick))
			must(t, err)
			other, err := l.Nodes[1].Start(exec.Command("sh", "-c", tick))
			must(t, err)
			grows := func(p *Process) bool {
				n := len(p.Output())
				return poll.Until(5*time.Second, func() bool { return len(p.Output()) > n })
			}
			if !grows(p) {
				t.Fatal("it does not tick")
			}
			must(t, l.Nodes[0].Freeze())
			if kind == freezer.Signals {
				after(20 * time.Millisecond) // the processes do not stop at the same instant
			}
			frozen := p.Output()
			after(100 * time.Millisecond)
			if !grows(other) {
				t.Error("another host stands still too")
			}
			if now := p.Output(); now != frozen {
				t.Errorf("it ticks on: %d, then %d bytes", len(frozen), len(now))
			}
			must(t, l.Nodes[0].Thaw())
			if !grows(p) {
				t.Error("it does not go on")
			}
		})
	}
}
