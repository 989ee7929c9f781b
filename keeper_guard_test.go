package flotilla

import (
	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/lease"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/testlog"

	"cmp"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A node whose disk hangs asks for no lease, not even from itself. Writers would have to wait for
// it.
func TestNoLeaseOnAHangingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ds := newDisks()
		n := fleet(t, simnet.New(), []string{"a"}, ds.attach)[0]
		goOn := ds.stop(n)
		defer goOn()
		go n.storage.Store(t.Context(), "k", nil)
		time.Sleep(replica.Hanging / 2)
		if !n.keeper.Valid() {
			t.Error("it has no lease, and its disk is only slow")
		}
		time.Sleep(replica.Hanging + 2*n.timing.Lease)
		if n.keeper.Valid() {
			t.Errorf("it has a lease for %v while its disk hangs", n.keeper.Left())
		}
	})
}

// A role whose holder's process is dead is granted after lease and hold-down, and no sooner.
func TestGhostHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		_, others := leaderOf(t, nodes)
		holder := others[0]
		const holdDown = 5 * time.Second
		<-holdPublicUntil(t.Context(), holder, Role{Name: "r"}, hold.Public{HoldDown: holdDown})
		next := holdPublicUntil(t.Context(), others[1], Role{Name: "r"}, hold.Public{HoldDown: holdDown})
		net.Isolate(holder.self.Name)
		over := holder.keeper.Until() // the last one: nobody renews it any more
		for granted := false; !granted; {
			select {
			case <-next:
				granted = true
			case <-time.After(10 * time.Millisecond):
				over = lease.MaxTime(over, holder.keeper.Until())
			}
		}
		if early := time.Until(over.Add(holdDown)); early > 0 {
			t.Errorf("the next holder has it %v before what the last one left is over", early)
		}
	})
}

// A node that is to form a cluster alone does not while a peer is silent: it may belong to one.
func TestAloneBesideASilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		host := net.Host("x")
		net.Isolate("x")
		n, err := Open(t.Context(), Config{
			Dir: t.TempDir(), Name: "x", Secrets: []Secret{NewSecret()}, Peers: Static("y:7373"),
			PeerListen: host.Listen, PeerDial: host.Dial, Logger: testlog.None(),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		time.Sleep(time.Minute)
		if id := n.members.Ident.Identity(); id.Cluster != "" || id.Formation != nil {
			t.Fatalf("it has formed the cluster %q, or is about to: %+v", id.Cluster, id.Formation)
		}
		net.Heal() // there is nobody
		mustBeReady(t, n)
	})
}

// After a time without a leader, the new one leaves the old sessions alone for a moment. A node
// that lives opens its next session in that time, and keeps what it has.
func TestNewLeaderWaitsForThoseWhoLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		time.Sleep(5 * time.Second)
		alive, gone := nodes[0], nodes[1:]
		for _, n := range gone {
			net.Host(n.self.Name).Kill()
			n.Close()
		}
		time.Sleep(10 * time.Second)
		net.Isolate(alive.self.Name) // or it would open the next session at once
		var again []*Node
		for _, n := range gone {
			net.Host(n.self.Name).Revive()
			again = append(again, reviewReopen(t, n))
		}
		var l *replica.Leadership
		for l == nil {
			time.Sleep(time.Millisecond)
			for _, n := range again {
				l = cmp.Or(l, n.replica.Leading.Load())
			}
		}
		s, err := again[0].store.Wait(t.Context(), func(s *state.State) bool {
			old := s.Session(alive.self.ID)
			return old == nil || old.Suspect != 0
		})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(l.Since); took < again[0].timing.Retry() {
			t.Errorf("%v after the leader began, the session is %+v", took, s.Session(alive.self.ID))
		}
	})
}
