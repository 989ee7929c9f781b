package netlab

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/netlab/frame"
	"github.com/flotilla-ha/flotilla/internal/netlab/poll"
	"github.com/flotilla-ha/flotilla/internal/netlab/span"
)

// floating returns an IPv4 and an IPv6 address that no host has, and the prefixes to add them by.
func floating() (addrs []netip.Addr, prefixes []netip.Prefix) {
	for _, s := range []string{"10.77.0.50", "fd77::50"} {
		a := netip.MustParseAddr(s)
		addrs = append(addrs, a)
		prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()))
	}
	return addrs, prefixes
}

func watch(t *testing.T, l *Lab, addrs []netip.Addr) *Watcher {
	t.Helper()
	w, err := l.Watch(0, addrs...)
	must(t, err)
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// soon returns a context for what happens at once if it happens.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// about compares the time that a fault took with the time that an instrument has measured. On a
// busy machine neither is exact.
func about(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	t.Logf("%s: %v, by hand %v", what, got, want)
	if got < want-100*time.Millisecond || got > want+300*time.Millisecond {
		t.Errorf("%s: %v, want about %v", what, got, want)
	}
}

func TestTwoOwners(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	t.Parallel() // it waits, and has hosts of its own
	l := open(t, 2, 1)
	a, b := l.Nodes[0], l.Nodes[1]
	addrs, prefixes := floating()
	for i, p := range prefixes {
		t.Run(addrs[i].String(), func(t *testing.T) {
			w := watch(t, l, addrs[i:i+1])
			must(t, a.AddAddr(p))
			after(100 * time.Millisecond)
			began := time.Now()
			must(t, b.AddAddr(p))
			after(300 * time.Millisecond)
			got := w.Answerers(0, addrs[i])
			slices.Sort(got)
			if !slices.Equal(got, []string{"node0", "node1"}) {
				t.Errorf("%v answer", got)
			}
			must(t, a.DelAddr(p))
			ended := time.Now()
			after(100 * time.Millisecond)
			must(t, b.DelAddr(p))
			after(answerTime)

			o := w.Report(began.Add(-50*time.Millisecond), ended.Add(50*time.Millisecond))[0]
			two := ended.Sub(began)
			about(t, "two in kernels", o.TwoInKernels.Longest, two)
			about(t, "two on the wire", o.TwoOnWire.Longest, two)
			if len(w.History(addrs[i])) != 2 {
				t.Errorf("history: %v", w.History(addrs[i]))
			}
		})
	}
}

// A hand-over with a gap shows no two owners. The gap shows as time without an owner.
func TestHandOver(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	l := open(t, 2, 2)
	addrs, prefixes := floating()
	w := watch(t, l, addrs)
	began := time.Now()
	for _, p := range prefixes {
		must(t, l.Nodes[0].AddAddr(p))
	}
	after(100 * time.Millisecond)
	removed := time.Now()
	for _, p := range prefixes {
		must(t, l.Nodes[0].DelAddr(p))
	}
	after(300 * time.Millisecond)
	for _, p := range prefixes {
		must(t, l.Nodes[1].AddAddr(p))
	}
	gap := time.Since(removed)
	must(t, w.Await(soon(t), func(owners []*Host) bool { return owners[0] == l.Nodes[1] && owners[1] == l.Nodes[1] }))
	after(100 * time.Millisecond)
	for _, o := range w.Report(began.Add(50*time.Millisecond), time.Now()) {
		if o.TwoInKernels.Total != 0 || o.TwoOnWire.Total != 0 {
			t.Errorf("%s: two owners: kernels %v, wire %v", o.Addr, o.TwoInKernels, o.TwoOnWire)
		}
		about(t, "none in kernels", o.NoneInKernels.Longest, gap)
		for i := range l.Clients {
			about(t, "unanswered", o.Unanswered[i].Longest, gap)
		}
	}
}

// In a partition each client sees the owner on its own side: there are two in the kernels, and one
// on each wire. When the sides are joined there are two on the wire.
func TestTwoOwnersInPartition(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	l := open(t, 2, 2)
	addrs, prefixes := floating()
	w := watch(t, l, addrs)
	must(t, l.Partition([]*Host{l.Nodes[0], l.Clients[0]}, []*Host{l.Nodes[1], l.Clients[1]}))
	for _, p := range prefixes {
		must(t, l.Nodes[0].AddAddr(p), l.Nodes[1].AddAddr(p))
	}
	began := time.Now()
	after(300 * time.Millisecond)
	for i, want := range []string{"node0", "node1"} {
		for _, addr := range addrs {
			if got := w.Answerers(i, addr); len(got) != 1 || got[0] != want {
				t.Errorf("%s: %v answer client %d, want %s", addr, got, i, want)
			}
		}
	}
	healed := time.Now()
	must(t, l.Heal())
	after(300*time.Millisecond + answerTime)
	for i, o := range w.Report(began, healed) {
		if o.TwoOnWire.Total != 0 {
			t.Errorf("%s: two on the wire for %v while there were two wires", addrs[i], o.TwoOnWire)
		}
		about(t, "two in kernels", o.TwoInKernels.Longest, healed.Sub(began))
	}
	for i, o := range w.Report(healed, time.Now()) {
		about(t, addrs[i].String()+" on the wire after", o.TwoOnWire.Total, 300*time.Millisecond)
	}
}

// Two clients on one network that get answers from different owners show two owners on the wire,
// even if no question has two answers.
func TestTwoOwnersForTwoClients(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	l := open(t, 2, 2)
	addrs, prefixes := floating()
	w := watch(t, l, addrs)
	// No fault of the lab does this. A node may be deaf to one client for its own reasons.
	must(t, l.faults.filters.dropFurther([2]*Host{l.Clients[0], l.Nodes[1]}, [2]*Host{l.Clients[1], l.Nodes[0]}))
	for _, p := range prefixes {
		must(t, l.Nodes[0].AddAddr(p), l.Nodes[1].AddAddr(p))
	}
	began := time.Now()
	after(300 * time.Millisecond)
	ended := time.Now()
	after(answerTime)
	for i, a := range w.askers {
		for _, addr := range addrs {
			if d := a.doubles(addr, span.Span{From: began, To: ended}); len(d) != 0 {
				t.Errorf("client %d has questions with two answers: this test proves nothing", i)
			}
		}
	}
	for i, o := range w.Report(began, ended) {
		about(t, addrs[i].String(), o.TwoOnWire.Total, ended.Sub(began))
	}
}

func (f *filters) dropFurther(pairs ...[2]*Host) error {
	for _, p := range pairs {
		f.conn.AddRule(f.rule(p[0].index, p[1].index))
	}
	return f.conn.Flush()
}

// A watcher knows addresses that were there before, and observes announcements with their form.
func TestAnnouncements(t *testing.T) {
	l := open(t, 1, 1)
	n := l.Nodes[0]
	addrs, prefixes := floating()
	must(t, n.AddAddr(prefixes[0]), n.AddAddr(prefixes[1]))
	w := watch(t, l, addrs)
	must(t, w.Await(soon(t), nil))

	s, err := n.link.openPacket(frame.EtherARP)
	must(t, err)
	defer s.Close()
	mac := frame.MAC(n.MAC)
	for _, f := range [][]byte{
		frame.Gratuitous(mac, addrs[0], frame.GratuitousRequest),
		frame.Gratuitous(mac, addrs[0], frame.GratuitousReply),
		frame.Unsolicited(mac, addrs[1], 0x20, true),
		frame.Unsolicited(mac, addrs[1], 0, false),
	} {
		must(t, s.send(f))
	}
	if !poll.Until(5*time.Second, func() bool { return len(w.Announcements()) >= 4 }) {
		t.Fatalf("observed %v", w.Announcements())
	}
	type observed struct {
		addr             netip.Addr
		form             frame.Form
		override, target bool
	}
	want := map[observed]bool{
		{addrs[0], frame.GratuitousRequest, false, false}: true,
		{addrs[0], frame.GratuitousReply, false, false}:   true,
		{addrs[1], frame.Advertisement, true, true}:       true,
		{addrs[1], frame.Advertisement, false, false}:     true,
	}
	for _, a := range w.Announcements() {
		h := observed{a.Addr, a.Form, a.Override, a.Target}
		if !want[h] || a.Owner != "node0" || a.Client != "client0" {
			t.Errorf("observed %+v", a)
		}
		delete(want, h)
	}
	if len(want) != 0 {
		t.Errorf("not observed: %v", want)
	}
}

func TestAwait(t *testing.T) {
	l := open(t, 2, 0)
	addrs, prefixes := floating()
	w := watch(t, l, addrs)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := w.Await(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("awaited %v while nobody has the addresses", err)
	}
	done := make(chan error)
	go func() {
		done <- w.Await(soon(t), func(owners []*Host) bool { return owners[0] == l.Nodes[1] && owners[1] == l.Nodes[0] })
	}()
	must(t, l.Nodes[0].AddAddr(prefixes[0]), l.Nodes[1].AddAddr(prefixes[0]), l.Nodes[0].AddAddr(prefixes[1]))
	select {
	case err := <-done:
		t.Fatalf("awaited %v while one address has two owners", err)
	case <-time.After(50 * time.Millisecond):
	}
	must(t, l.Nodes[0].DelAddr(prefixes[0]))
	must(t, <-done)
}
