package guard

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// join takes a share in the program, and fails the test unless there is a guard then.
func (h *host) join(name string, d Duty) {
	h.t.Helper()
	pid, err := strconv.Atoi(h.do("join %s %s", name, d))
	if err != nil {
		h.t.Fatal(err)
	}
	h.guard = pid
}

// buried waits until the guard of a dead program has exited, and returns what it did. Death notices
// that were sent at the same time are sorted.
func (h *host) buried() []string {
	h.t.Helper()
	if status := h.ended(); !status.Exited() || status.ExitStatus() != 0 {
		h.t.Errorf("the guard ended with %#x", status)
	}
	did := h.hooked()
	notice := func(s string) bool { return strings.HasPrefix(s, "notice ") }
	if first := slices.IndexFunc(did, notice); first >= 0 {
		last := first
		for last < len(did) && notice(did[last]) {
			last++
		}
		slices.Sort(did[first:last])
	}
	return did
}

// All parts of a program share one guard. It sends the notices of the shares that are open.
func TestShares(t *testing.T) {
	for _, c := range []struct {
		name  string
		close []string
		want  []string
	}{
		{"both", nil, []string{"notice of-a", "notice of-b"}},
		{"one is closed", []string{"a"}, []string{"notice of-b"}},
		{"one is closed twice", []string{"a", "a"}, []string{"notice of-b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, false)
			h.join("a", Notices)
			first := h.guard
			h.join("b", Notices)
			if h.guard != first {
				t.Errorf("there are two guards, %d and %d", first, h.guard)
			}
			h.do("share a former")
			h.do("share a of-a")
			h.do("share b of-b")
			for _, name := range c.close {
				h.do("part %s", name)
			}
			h.kill(unix.SIGKILL)
			if diff := cmp.Diff(c.want, h.buried()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The last share ends the guard, and the next one starts another.
func TestLastShare(t *testing.T) {
	h := newHost(t, false)
	h.join("a", Notices)
	first := h.guard
	h.do("share a of-a")
	h.do("part a")
	if err := unix.Kill(first, 0); err != unix.ESRCH {
		t.Errorf("process %d is there: %v", first, err)
	}
	h.join("b", Notices)
	if h.guard == first {
		t.Error("it is the same guard")
	}
	h.kill(unix.SIGKILL)
	if did := h.buried(); len(did) > 0 {
		t.Errorf("the guard did %q", did)
	}
}

// A guard that only sends notices is replaced when a part of the program has addresses. No notice
// of any share is sent before the addresses are gone.
func TestShareWithAddresses(t *testing.T) {
	n := newNetwork(t)
	h := newHost(t, false)
	h.join("node", Notices)
	first := h.guard
	h.do("share node of-node")
	h.join("vip", Addresses)
	if h.guard == first {
		t.Error("the guard was not replaced")
	}
	if err := unix.Kill(first, 0); err != unix.ESRCH {
		t.Errorf("process %d is there: %v", first, err)
	}
	h.send("join other %s", Addresses)
	if h.out.Scan(); !strings.Contains(h.out.Text(), "another part of this program") {
		t.Errorf("a second share for addresses: %s", h.out.Text())
	}
	h.do("extend 1h")
	h.do("watch %s %s", four, six)
	h.do("table flotilla")
	h.do("share vip of-vip")
	h.do("add")
	n.await(true, four)
	n.await(true, six)
	h.kill(unix.SIGKILL)
	n.await(false, four)
	n.await(false, six)
	if diff := cmp.Diff([]string{"remove 2", "notice of-node", "notice of-vip", "table flotilla"}, h.buried()); diff != "" {
		t.Error(diff)
	}
}

// A share for addresses that is closed leaves the rest as it is, and its addresses too.
func TestShareWithAddressesIsClosed(t *testing.T) {
	n := newNetwork(t)
	h := newHost(t, false)
	h.join("vip", Addresses)
	h.join("node", Notices)
	h.do("extend 1h")
	h.do("watch %s", four)
	h.do("table flotilla")
	h.do("share vip of-vip")
	h.do("share node of-node")
	h.do("add")
	n.await(true, four)
	h.do("part vip")
	h.kill(unix.SIGKILL)
	if diff := cmp.Diff([]string{"notice of-node"}, h.buried()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{four}, n.has()); diff != "" {
		t.Error(diff)
	}
}

// A guard that only sends notices needs no permission. Where one for addresses cannot work there is
// none, because it might send a notice while an address is in the kernel.
func TestShareWithoutPermission(t *testing.T) {
	h := newHost(t, false, "GODEBUG="+refused)
	h.join("node", Notices)
	h.do("share node of-node")
	if answer := h.do("join vip %s", Addresses); !strings.Contains(answer, "the test does not permit it") {
		t.Errorf("the second share: %s", answer)
	}
	h.awaitSaid("no guard could be started")
	h.guard = 0
	h.kill(unix.SIGKILL)
	h.cmd.Wait()
	if did := h.hooked(); len(did) > 0 {
		t.Errorf("a guard did %q", did)
	}
}
