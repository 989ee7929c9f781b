package netlab

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// start runs a script in a host.
func start(h *Host, script string) error {
	_, err := h.Start(exec.Command("sh", "-c", script))
	return err
}

// ask returns who answers at a host's address; empty if nobody does.
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
		t.Errorf("answered by %q where nobody is", got)
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
		t.Errorf("this process is not where it was: %v, before %v", after, before)
	}
	if _, err := l.Nodes[0].Start(exec.Command("/nonexistent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there was started: %v", err)
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
	if !poll(5*time.Second, func() bool { return count(l.Nodes[0], "1001") == 1 && count(l.Nodes[0], "1002") == 1 }) {
		t.Fatal("the descendants do not start")
	}
	if n, err := l.Nodes[0].Kill(syscall.SIGKILL, is("1001")); n != 1 || err != nil {
		t.Errorf("%d killed, %v", n, err)
	}
	if !poll(5*time.Second, func() bool { return count(l.Nodes[0], "1001") == 0 }) {
		t.Error("it was not killed")
	}
	if count(l.Nodes[0], "1002") != 1 || count(l.Nodes[1], "1001") != 1 {
		t.Error("others were killed too")
	}
	if n, err := l.Nodes[0].Kill(syscall.SIGKILL, nil); n != 2 || err != nil {
		t.Errorf("%d killed, %v", n, err)
	}
}

// A frozen host does nothing at all, its grandchildren included, and goes on afterwards as if nothing had been.
func TestFreeze(t *testing.T) {
	for _, freezer := range []Freezer{CgroupV2, CgroupV1, Signals} {
		t.Run(strings.ReplaceAll(freezer.String(), " ", "-"), func(t *testing.T) {
			l := openWith(t, 2, 0, freezer)
			const tick = "(while :; do echo tick; sleep 0.01; done) & wait"
			p, err := l.Nodes[0].Start(exec.Command("sh", "-c", tick))
			must(t, err)
			other, err := l.Nodes[1].Start(exec.Command("sh", "-c", tick))
			must(t, err)
			grows := func(p *Process) bool {
				n := len(p.Output())
				return poll(5*time.Second, func() bool { return len(p.Output()) > n })
			}
			if !grows(p) {
				t.Fatal("it does not tick")
			}
			must(t, l.Nodes[0].Freeze())
			if freezer == Signals {
				after(20 * time.Millisecond) // it does not promise that all stand still at once
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

// What a lab left behind whose process was killed is removed by the next, running programs included; what a living process has is not.
func TestSweep(t *testing.T) {
	for _, freezer := range []Freezer{CgroupV2, CgroupV1} {
		t.Run(strings.ReplaceAll(freezer.String(), " ", "-"), func(t *testing.T) {
			l := openWith(t, 1, 0, freezer)
			dead := exec.Command("true")
			must(t, dead.Run())
			began, err := startOf(os.Getpid())
			must(t, err)
			stale := &cgroup{groups: l.groups, dir: filepath.Join(l.groups.root, "netlab-"+strconv.Itoa(dead.Process.Pid)+"-"+began+"-1-node0")}
			reused := &cgroup{groups: l.groups, dir: filepath.Join(l.groups.root, "netlab-"+strconv.Itoa(os.Getpid())+"-1-1-node0")}
			must(t, os.Mkdir(stale.dir, 0o755), os.Mkdir(reused.dir, 0o755))
			own := l.Nodes[0].group
			l.Nodes[0].group = stale
			p, err := l.Nodes[0].Start(exec.Command("sleep", "1000"))
			l.Nodes[0].group = own
			must(t, err)
			must(t, stale.freeze(true))

			openWith(t, 1, 0, freezer)
			for _, dir := range []string{stale.dir, reused.dir} {
				if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is still there: %v", dir, err)
				}
			}
			select {
			case <-p.Done():
			case <-time.After(5 * time.Second):
				t.Error("its program still runs")
			}
			if _, err := os.Stat(own.(*cgroup).dir); err != nil {
				t.Errorf("this lab's own: %v", err)
			}
		})
	}
}
