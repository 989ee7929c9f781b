package flotilla

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// trio starts three nodes over net, for tests that must look inside.
func trio(t *testing.T, net *simnet.Network, configure func(*Config)) []*Node {
	t.Helper()
	return fleet(t, net, []string{"a", "b", "c"}, configure)
}

// leaderOf returns the node that leads and the others.
func leaderOf(t *testing.T, nodes []*Node) (*Node, []*Node) {
	t.Helper()
	for i, n := range nodes {
		if n.replica.Leading.Load() != nil {
			return n, append(append([]*Node{}, nodes[:i]...), nodes[i+1:]...)
		}
	}
	t.Fatal("nobody leads")
	return nil, nil
}

// A leader that was replaced while it stood still is not told that it is current, whatever answers
// to earlier questions arrive then. raft's own VerifyLeader counts those: see
// TestVerifyLeaderOfBareRaft of package replica.
func TestVerifyLeaderOfTheOld(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		time.Sleep(2 * time.Second)
		old, others := leaderOf(t, nodes)
		net.Isolate(old.self.Name)
		others[0].replica.Stand(t.Context())
		for others[0].replica.Leading.Load() == nil {
			time.Sleep(time.Millisecond)
		}
		if old.replica.Leading.Load() == nil {
			t.Fatal("the old leader knows already; the test shows nothing")
		}
		result := make(chan error)
		go func() {
			_, err := old.replica.Confirm(t.Context())
			result <- err
		}()
		time.Sleep(10 * time.Millisecond)
		net.Heal() // all that was said before arrives now
		if err := <-result; !errors.Is(err, rpc.ErrNotLeader) && !errors.Is(err, ErrNoLeader) {
			t.Errorf("a leader that has been replaced is told that it is current: %v", err)
		}
	})
}

// Transfers of the leadership to peers that cannot be reached leave a cluster that can be written
// to under every leader. In raft itself a second transfer would not: see
// TestTransferTwiceInBareRaft of package replica.
func TestTransferTwice(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for range Cases(t, 5, 2) {
		synctest.Test(t, func(t *testing.T) {
			net := simnet.New()
			nodes := trio(t, net, nil)
			old, others := leaderOf(t, nodes)
			for range 3 {
				// The peers become unreachable right after they were found fit.
				done := make(chan struct{})
				go func() {
					defer close(done)
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					old.replica.Transfer(ctx, "") // whatever comes of it
				}()
				time.Sleep(time.Microsecond)
				net.Isolate(others[0].self.Name)
				net.Isolate(others[1].self.Name)
				<-done
				net.Heal()
				time.Sleep(10 * time.Second)
			}
			for _, n := range nodes {
				if err := n.Ready(t.Context()); err != nil {
					t.Fatal(err)
				}
				n.replica.Stand(t.Context()) // each leads once, the old one too
				time.Sleep(10 * time.Second)
				if err := n.Storage().Store(t.Context(), "k", []byte("1")); err != nil {
					t.Errorf("%s cannot write: %v", n.self.Name, err)
				}
			}
		})
	}
}

// If a voter does not take over, the next one does. raft itself would take no other offer, and no
// writes, for a leader's long election timeout.
func TestTransferToTheNext(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, timing := range []Timing{LAN, Fast, WAN} {
		t.Run(timing.String(), func(t *testing.T) { transferToTheNext(t, timing) })
	}
}

func transferToTheNext(t *testing.T, timing Timing) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, func(c *Config) { c.Timing = timing })
		time.Sleep(10 * time.Second) // heartbeats have become slow
		old, others := leaderOf(t, nodes)
		for _, srv := range old.replica.Servers() {
			if i := slices.IndexFunc(others, func(n *Node) bool { return n.self.ID == string(srv.ID) }); i >= 0 {
				others[0], others[i] = others[i], others[0] // it is asked first
				break
			}
		}
		start := time.Now()
		result := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), old.replica.TransferTimeout())
			defer cancel()
			result <- old.replica.Transfer(ctx, "")
		}()
		time.Sleep(time.Microsecond)
		net.Isolate(others[0].self.Name) // right after it was found fit
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		if err := others[1].Storage().Store(t.Context(), "k", nil); err != nil {
			t.Fatal(err)
		}
		if others[1].replica.Leading.Load() == nil {
			t.Errorf("%s does not lead", others[1].self.Name)
		}
		if took := time.Since(start); took < old.timing.Heartbeat || took > 2*old.timing.Heartbeat {
			t.Errorf("took %v", took)
		}
	})
}

// A leader whose offer comes to nothing goes on with its usual timeouts.
func TestTransferToNobody(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		time.Sleep(10 * time.Second)
		leader, others := leaderOf(t, nodes)
		result := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), leader.replica.TransferTimeout())
			defer cancel()
			result <- leader.replica.Transfer(ctx, others[0].self.ID)
		}()
		time.Sleep(time.Microsecond)
		net.Isolate(others[0].self.Name)
		time.Sleep(leader.timing.Offer())
		if err := leader.Storage().Store(t.Context(), "k", nil); err != nil {
			t.Error(err)
		}
		if err, want := <-result, others[0].self.Name+" has not taken over within "+leader.timing.Offer().String(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the transfer ends with %v, want %q", err, want)
		}
		if leader.replica.Leading.Load() == nil {
			t.Error("it leads no more")
		}
		if c := leader.replica.Raft.Load().ReloadableConfig(); c.ElectionTimeout != 2*leader.timing.Heartbeat || c.HeartbeatTimeout != c.ElectionTimeout {
			t.Errorf("raft's timeouts are %v and %v", c.HeartbeatTimeout, c.ElectionTimeout)
		}
	})
}

// A node that lost an election can take over from the winner at once. In raft itself it could not:
// see TestLostCandidacyOfBareRaft of package replica.
func TestTransferToALoser(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		time.Sleep(10 * time.Second)
		old, others := leaderOf(t, nodes)
		loser, winner := others[0], others[1]
		net.Block(loser.self.Name, old.self.Name)
		net.Block(loser.self.Name, winner.self.Name)
		loser.replica.Stand(t.Context())
		winner.replica.Stand(t.Context())
		for winner.replica.Leading.Load() == nil {
			time.Sleep(time.Millisecond)
		}
		net.Heal()
		time.Sleep(100 * time.Millisecond)
		if leader, candidate := loser.replica.Standing(); leader != winner.self.ID || !candidate || loser.replica.Term() != winner.replica.Term() {
			t.Fatalf("the test shows nothing: leader %q, candidate %v", leader, candidate)
		}
		ctx, cancel := context.WithTimeout(t.Context(), loser.timing.Heartbeat/2)
		defer cancel()
		if err := winner.replica.Transfer(ctx, loser.self.ID); err != nil {
			t.Fatal(err)
		}
		if err := loser.Storage().Store(ctx, "k", nil); err != nil {
			t.Fatal(err)
		}
		if loser.replica.Leading.Load() == nil {
			t.Error("it does not lead")
		}
	})
}

// A snapshot that conflicts with the last entry of the log can be taken in only by another instance
// of raft.
func TestRaftIsStartedAnew(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		for round := range 2 {
			for _, n := range nodes {
				if err := n.replica.Disk.Restart(time.Now()); err != nil {
					t.Fatal(err)
				}
				if err := n.Storage().Store(t.Context(), "k", []byte(n.self.Name+strconv.Itoa(round))); err != nil {
					t.Fatalf("%s: %v", n.self.Name, err)
				}
				for _, other := range nodes {
					if got, err := other.Storage().Load(t.Context(), "k"); err != nil || string(got) != n.self.Name+strconv.Itoa(round) {
						t.Errorf("%s reads %q, %v after raft was started anew on %s", other.self.Name, got, err, n.self.Name)
					}
				}
			}
		}
	})
}

// The log asks for another instance of raft, and gets it. The node keeps its lease meanwhile.
func TestRaftIsStartedAnewByItself(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var once atomic.Bool
		nodes := trio(t, simnet.New(), func(c *Config) {
			c.hooks.Disk.Before = func(op string) error {
				if op == "store entries" && once.CompareAndSwap(true, false) {
					return durable.ErrRestart
				}
				return nil
			}
		})
		before := make([]*replica.Instance, 3)
		for i, n := range nodes {
			before[i] = n.replica.Raft.Load()
		}
		once.Store(true)
		storeWithin(t, 5*time.Second, nodes[0], "k", "1")
		time.Sleep(5 * time.Second)
		anew := 0
		for i, n := range nodes {
			wantValue(t, n, "k", "1")
			if n.replica.Raft.Load() != before[i] {
				anew++
			}
			if n.life.Setbacks.Load() != 0 || n.Status().Err != "" {
				t.Errorf("%s was out: %s", n.self.Name, n.Status().Err)
			}
		}
		if anew != 1 {
			t.Errorf("raft was started anew on %d nodes", anew)
		}
	})
}

// A disk that fails ends this node's part in the cluster, not the program that it lives in: it goes
// on answering reads.
func TestFailedNodeGoesOnServing(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		if err := nodes[0].Storage().Store(t.Context(), "k", []byte("1")); err != nil {
			t.Fatal(err)
		}
		old, others := leaderOf(t, nodes)
		broken := errors.New("input/output error")
		old.replica.Fail(broken)
		if err := old.Ready(t.Context()); !errors.Is(err, broken) {
			t.Errorf("Ready says %v", err)
		}
		if err := old.Storage().Store(t.Context(), "k", []byte("2")); !errors.Is(err, broken) {
			t.Errorf("a write says %v", err)
		}
		if got, err := old.Storage().Load(t.Context(), "k"); err != nil || string(got) != "1" {
			t.Errorf("a read gives %q, %v", got, err)
		}
		start := time.Now()
		if err := others[0].Storage().Store(t.Context(), "k", []byte("3")); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("the others wrote again after %v", took)
		}
	})
}

// What a member proposes is looked at before it is in the log, where it would end every node.
func TestMalformedProposal(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		l, others := leaderOf(t, nodes)
		request := replica.ApplyRequest{Proposals: []replica.Proposal{{Session: 1, Seq: 1, Entry: []byte("garbage")}}}
		_, err := others[0].replica.Port.Call(t.Context(), l.self.ID, rpc.Apply, request.Encode())
		var answer *wire.RPCError
		if !errors.As(err, &answer) || !strings.Contains(answer.Error(), codec.ErrMalformed.Error()) {
			t.Errorf("a malformed proposal is taken: %v", err)
		}
		time.Sleep(5 * time.Second)
		for _, n := range nodes {
			if s := n.Status(); s.Err != "" {
				t.Error(s.Err)
			}
		}
	})
}
