package flotilla

import (
	"errors"
	"io/fs"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// write is a write that was begun.
type write struct {
	done chan struct{} // closed when there is an outcome
	err  error
}

// storing begins a write.
func storing(t *testing.T, n *Node, key, value string) *write {
	t.Helper()
	w := &write{done: make(chan struct{})}
	go func() {
		defer close(w.done)
		w.err = n.Storage().Store(t.Context(), key, []byte(value))
	}()
	return w
}

// wantPending fails the test if the write is acknowledged, or has failed.
func (w *write) wantPending(t *testing.T) {
	t.Helper()
	select {
	case <-w.done:
		t.Errorf("the write was answered while the leader's disk had not got it: %v", w.err)
	default:
	}
}

// wait returns the outcome.
func (w *write) wait() error {
	<-w.done
	return w.err
}

// A leader sends entries while its disk writes them. A write counts only when the leader's disk has
// it too. If the leader fails before, it has promised nothing: others go on, with or without the
// entries, and it agrees with them when it is back.
func TestLeaderFailsWhileItWrites(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		d := newDisks()
		nodes := trio(t, simnet.New(), d.attach)
		leader, others := leaderOf(t, nodes)
		storeWithin(t, time.Second, others[0], "k", "1")
		last := leader.replica.LastIndex()
		for _, n := range others {
			eventually(t, time.Second, "the followers have all", func() bool { return n.replica.LastIndex() >= last })
		}

		goOn := d.stop(leader)
		done := storing(t, others[0], "k", "2")
		eventually(t, 300*time.Millisecond, "a follower has the entry", func() bool { return others[1].replica.LastIndex() > last })
		time.Sleep(100 * time.Millisecond)
		done.wantPending(t)
		if wait, err := leader.replica.Durable(leader.replica.LastIndex()); wait == nil || err != nil {
			t.Errorf("the leader's disk has what it cannot have: %v", err)
		}
		d.fail(syscall.EIO, leader) // it dies before its disk has the entry
		goOn()
		if err := done.wait(); err != nil {
			t.Errorf("the write was not made by the next leader: %v", err)
		}
		d.fail(nil, leader)
		mustBeReady(t, leader)
		storeWithin(t, 5*time.Second, leader, "after", "3")
		for _, n := range nodes {
			wantValue(t, n, "k", "2")
			wantValue(t, n, "after", "3")
		}
	})
}

// A leader whose disk is slow is deposed meanwhile. Its entries that nobody else has are replaced.
func TestLeaderIsDeposedWhileItWrites(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		d, net := newDisks(), simnet.New()
		nodes := trio(t, net, d.attach)
		leader, others := leaderOf(t, nodes)
		storeWithin(t, time.Second, leader, "k", "1")
		goOn := d.stop(leader)
		net.Isolate(leader.self.Name)
		done := storing(t, leader, "lost", "2") // it reaches nobody
		time.Sleep(100 * time.Millisecond)
		done.wantPending(t)
		storeWithin(t, 10*time.Second, others[0], "k", "3")
		net.Heal()
		time.Sleep(100 * time.Millisecond)
		goOn()
		if err := done.wait(); !errors.Is(err, ErrLost) {
			t.Errorf("a write that reached nobody: %v", err)
		}
		mustBeReady(t, leader)
		storeWithin(t, 5*time.Second, leader, "after", "4")
		for _, n := range nodes {
			wantValue(t, n, "k", "3")
			wantValue(t, n, "after", "4")
			if _, err := n.Storage().Load(t.Context(), "lost"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s reads what was never acknowledged: %v", n.self.Name, err)
			}
		}
	})
}

// A leader that is the only voter waits for no follower. So its own disk must have an entry first,
// also if other members follow that do not vote.
func TestOnlyVoterWaitsForItsDisk(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		d, net := newDisks(), simnet.New()
		only := fleet(t, net, []string{"a"}, d.attach)[0]
		check := func(n *Node, value string) {
			t.Helper()
			goOn := d.stop(only)
			done := storing(t, n, "k", value)
			time.Sleep(100 * time.Millisecond)
			done.wantPending(t)
			goOn()
			if err := done.wait(); err != nil {
				t.Error(err)
			}
		}
		check(only, "alone")
		other := join(t, net, only, "b", func(c *Config) { c.hooks.Disk.Before = nil })
		mustBeReady(t, other)
		check(only, "by the voter")
		check(other, "by the other")
		mustDo(t, other.Close())
		check(only, "while the other is away")
		if servers := only.replica.Servers(); len(servers) != 2 || !slices.ContainsFunc(servers, func(s raft.Server) bool { return s.Suffrage != raft.Voter }) {
			t.Errorf("the members are %v; the test shows nothing", servers)
		}
	})
}

// A candidate asks for votes when its own is on its disk. Its disk hangs, so nobody votes.
func TestCandidateVotesFirst(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		d := newDisks()
		nodes := trio(t, simnet.New(), d.attach)
		time.Sleep(2 * time.Second)
		_, others := leaderOf(t, nodes)
		goOn := d.stop(others[0])
		terms := make(map[*Node]uint64)
		for _, n := range nodes {
			terms[n] = n.replica.Term()
		}
		go others[0].replica.Stand(t.Context())
		time.Sleep(200 * time.Millisecond)
		if others[0].replica.Term() == terms[others[0]] {
			t.Error("it does not stand; the test shows nothing")
		}
		for _, n := range nodes {
			if n != others[0] && n.replica.Term() != terms[n] {
				t.Errorf("%s was asked for its vote in term %d", n.self.Name, n.replica.Term())
			}
		}
		goOn()
		storeWithin(t, 10*time.Second, nodes[0], "k", "1")
	})
}
