package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flotilla-ha/flotilla/internal/netlab/frame"
	"github.com/flotilla-ha/flotilla/internal/netlab/freezer"
	"github.com/flotilla-ha/flotilla/internal/netlab/namespace"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// open makes a lab, and closes it at the end of the test.
func open(t *testing.T, nodes, clients int) *Lab {
	t.Helper()
	return openWith(t, nodes, clients, 0)
}

func openWith(t *testing.T, nodes, clients int, kind freezer.Kind) *Lab {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	l, err := newLab(nodes, clients, kind)
	if errors.Is(err, freezer.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// after waits in real time, while a fault lasts, or for something that must not happen.
func after(d time.Duration) { <-time.After(d) }

// matrix sends a frame from every host to all others, and returns which arrived: "node0>client0".
// The frames are below ARP and IP, so no direction needs the other.
func matrix(t *testing.T, l *Lab) map[string]bool {
	t.Helper()
	const kind = 0x88b5 // for local experiments
	hosts := l.hosts()
	sockets := make([]*packetSocket, len(hosts))
	for i, h := range hosts {
		var err error
		sockets[i], err = h.link.openPacket(kind)
		must(t, err)
		defer sockets[i].Close()
	}
	for i, h := range hosts {
		f := frame.Ethernet(frame.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, frame.MAC(h.MAC), kind)
		f = binary.BigEndian.AppendUint16(f, uint16(i))
		must(t, sockets[i].send(append(f, make([]byte, 46)...)))
	}
	arrived := make(map[string]bool)
	buf := make([]byte, 64)
	for i := range hosts {
		sockets[i].SetReadDeadline(time.Now().Add(30 * time.Millisecond))
		for {
			n, err := sockets[i].Read(buf)
			if err != nil {
				break
			}
			if n >= 16 {
				arrived[hosts[binary.BigEndian.Uint16(buf[14:])].Name+">"+hosts[i].Name] = true
			}
		}
	}
	return arrived
}

func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits, and has hosts of its own
	l := open(t, 3, 2)
	n, c := l.Nodes, l.Clients
	isolated := func(broken ...*Host) func(from, to *Host) bool {
		return func(from, to *Host) bool { return !slices.Contains(broken, from) && !slices.Contains(broken, to) }
	}
	all := isolated()
	for _, test := range []struct {
		name     string
		do, undo func() error
		delivers func(from, to *Host) bool
	}{
		{"none", func() error { return nil }, func() error { return nil }, all},
		{"link down", n[0].LinkDown, n[0].LinkUp, isolated(n[0])},
		{"cut at the bridge", n[1].Cut, n[1].Mend, isolated(n[1])},
		{"cannot send", n[2].CutSending, n[2].Mend, func(from, _ *Host) bool { return from != n[2] }},
		{"cannot receive", n[2].CutReceiving, l.Heal, func(_, to *Host) bool { return to != n[2] }},
		{"two one-way cuts", func() error { return errors.Join(n[0].CutSending(), n[1].CutReceiving()) }, l.Heal,
			func(from, to *Host) bool { return from != n[0] && to != n[1] }},
		{"partition", func() error { return l.Partition([]*Host{n[0], c[1]}, []*Host{n[1], n[2], c[0]}) }, l.Heal,
			func(from, to *Host) bool { return (from == n[0] || from == c[1]) == (to == n[0] || to == c[1]) }},
		{"partition without the rest", func() error { return l.Partition([]*Host{n[0]}) }, l.Heal, isolated(n[0])},
		{"one partition after another", func() error {
			return errors.Join(l.Partition([]*Host{n[0]}), l.Partition([]*Host{n[1]}))
		}, l.Heal, isolated(n[1])},
	} {
		t.Run(test.name, func(t *testing.T) {
			check := func(delivers func(from, to *Host) bool) {
				t.Helper()
				arrived := matrix(t, l)
				for _, from := range l.hosts() {
					for _, to := range l.hosts() {
						if from == to {
							continue
						}
						if got, want := arrived[from.Name+">"+to.Name], delivers(from, to); got != want {
							t.Errorf("%s > %s: arrived %t, want %t", from.Name, to.Name, got, want)
						}
						if got, want := l.Delivers(from, to), delivers(from, to); got != want {
							t.Errorf("%s > %s: the lab says %t, want %t", from.Name, to.Name, got, want)
						}
					}
				}
			}
			must(t, test.do())
			check(test.delivers)
			must(t, test.undo())
			check(all)
		})
	}
}

// A node has its own addresses again after its link was down.
func TestLinkUp(t *testing.T) {
	l := open(t, 1, 1)
	must(t, l.Nodes[0].LinkDown(), l.Nodes[0].LinkUp())
	w, err := l.Watch(0, l.Nodes[0].Addr4, l.Nodes[0].Addr6)
	must(t, err)
	must(t, w.Await(soon(t), nil), w.Close())
}

// carrier returns true if the interface of a host has a carrier.
func carrier(t *testing.T, h *Host) bool {
	t.Helper()
	link, err := h.link.ns.Handle.LinkByName(Interface)
	must(t, err)
	return link.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
}

func TestCarrier(t *testing.T) {
	l := open(t, 2, 0)
	n := l.Nodes[0]
	for _, step := range []struct {
		name string
		do   func() error
		want bool
	}{
		{"at first", func() error { return nil }, true},
		{"one-way cuts", func() error { return errors.Join(n.CutSending(), n.CutReceiving()) }, true},
		{"partition", func() error { return l.Partition([]*Host{n}) }, true},
		{"cut", n.Cut, false},
		{"mended", n.Mend, true},
	} {
		must(t, step.do())
		if got := carrier(t, n); got != step.want {
			t.Errorf("%s: carrier %t, want %t", step.name, got, step.want)
		}
	}
}

// Two labs at once share nothing, though their names and addresses are the same.
func TestTwoLabs(t *testing.T) {
	a, b := open(t, 1, 1), open(t, 1, 1)
	_, err := a.Nodes[0].Respond()
	must(t, err)
	must(t, b.Nodes[0].Cut())
	if got := ask(t, a.Clients[0], a.Nodes[0]); got != "node0" {
		t.Errorf("answered by %q", got)
	}
	if left, err := b.Nodes[0].Processes(); len(left) != 0 || err != nil {
		t.Errorf("the other lab has processes %v, %v", left, err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, n := range [][2]int{{0, 0}, {-1, 3}, {81, 0}, {1, 81}} {
		if _, err := New(n[0], n[1]); err == nil || !strings.Contains(err.Error(), "a lab needs") {
			t.Errorf("a lab of %v was made: %v", n, err)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	if err := Available(); err != nil {
		b.Skip(err)
	}
	for b.Loop() {
		l, err := New(3, 2)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// inNamespaces returns the processes that are in a namespace of the list, or hold a descriptor of
// one.
func inNamespaces(t *testing.T, inodes []uint64) (found []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/task/*/ns/net")
	must(t, err)
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	must(t, err)
	for _, link := range append(links, fds...) {
		target, err := os.Readlink(link)
		if err != nil {
			continue
		}
		for _, inode := range inodes {
			if target == fmt.Sprintf("net:[%d]", inode) {
				found = append(found, link)
			}
		}
	}
	return found
}

func TestClose(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for _, kind := range []freezer.Kind{freezer.CgroupV2, freezer.CgroupV1, freezer.Signals} {
		t.Run(strings.ReplaceAll(kind.String(), " ", "-"), func(t *testing.T) {
			l := openWith(t, 2, 1, kind)
			inodes := []uint64{}
			for _, s := range []*namespace.Namespace{l.bridge, l.links[0].ns, l.links[1].ns, l.links[2].ns} {
				var stat unix.Stat_t
				must(t, unix.Fstat(int(s.NS), &stat))
				inodes = append(inodes, stat.Ino)
			}
			// Programs that ignore signals, that have left their parent, and that stand still.
			must(t, start(l.Nodes[0], "trap '' TERM HUP; while :; do sleep 1; done"))
			must(t, start(l.Nodes[0], "sleep 1000 & exec sleep 1000"))
			must(t, start(l.Nodes[1], "exec sleep 1000"))
			if kind != freezer.Signals {
				must(t, start(l.Nodes[0], "setsid sleep 1000 & exit"))
			}
			must(t, l.Nodes[1].Freeze())
			if len(inNamespaces(t, inodes)) == 0 {
				t.Error("no process is found in the namespaces before Close: this test sees nothing")
			}
			must(t, l.Close())
			if left := inNamespaces(t, inodes); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			if left, err := l.groups.Left(); len(left) > 0 || err != nil {
				t.Errorf("left: %q, %v", left, err)
			}
			*l = Lab{} // closed
		})
	}
}
