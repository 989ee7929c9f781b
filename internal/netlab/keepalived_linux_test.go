package netlab

import (
	"context"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// Both set-ups spread the addresses, move them when the program of their node has died, and bring them back.
func TestKeepalived(t *testing.T) {
	for _, fast := range []bool{true, false} {
		name := map[bool]string{true: "fast", false: "default"}[fast]
		t.Run(name, func(t *testing.T) {
			if testing.Short() && !fast {
				t.Skip("it takes ten seconds")
			}
			dir := t.TempDir() // first: it is removed when all processes have ended
			l := open(t, 2, 1)
			k := Keepalived{Dir: dir, Fast: fast, Addrs: [][]netip.Addr{
				{netip.MustParseAddr("10.77.0.51"), netip.MustParseAddr("fd77::51")},
				{netip.MustParseAddr("10.77.0.52"), netip.MustParseAddr("fd77::52")},
			}}
			if err := k.Available(); err != nil {
				t.Skip(err)
			}
			var addrs []netip.Addr
			for _, group := range k.Addrs {
				addrs = append(addrs, group...)
			}
			w := watch(t, l, addrs)
			var daemons []*Process
			for _, n := range l.Nodes {
				p, err := k.Start(n)
				must(t, err)
				daemons = append(daemons, p)
			}
			await := func(owners ...*Host) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				if err := w.Await(ctx, func(got []*Host) bool {
					for i := range got {
						if got[i] != owners[i/2] {
							return false
						}
					}
					return true
				}); err != nil {
					t.Fatalf("%v\n%s\n%s", err, daemons[0].Output(), daemons[1].Output())
				}
			}
			await(l.Nodes[0], l.Nodes[1])
			must(t, k.Tell(l.Nodes[0], false))
			await(l.Nodes[1], l.Nodes[1])
			must(t, k.Tell(l.Nodes[0], true))
			await(l.Nodes[0], l.Nodes[1])
			must(t, daemons[1].Kill(syscall.SIGTERM))
			await(l.Nodes[0], l.Nodes[0])
		})
	}
}
