package flotilla

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// Each test in this file has failed once. Its comment tells what happened then, and must not
// happen.

// fleet starts nodes over net that form a cluster.
func fleet(t *testing.T, net *simnet.Network, names []string, configure func(*Config)) []*Node {
	t.Helper()
	secret := NewSecret()
	var addrs []string
	for _, name := range names {
		addrs = append(addrs, name+":7373")
	}
	var nodes []*Node
	for _, name := range names {
		host := net.Host(name)
		cfg := Config{
			Dir: t.TempDir(), Name: name, Secrets: []Secret{secret}, Peers: Static(addrs...), Expect: len(names),
			PeerListen: host.Listen, PeerDial: host.Dial, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		}
		if configure != nil {
			configure(&cfg)
		}
		n, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		mustBeReady(t, n)
	}
	// The cluster version is raised by an entry that no test expects.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, n := range nodes {
		if n.cfg.supports != 0 {
			return nodes // the test is about the version
		}
		if _, err := n.store.Wait(ctx, func(s *state.State) bool { return s.Version == state.Version }); err != nil {
			t.Fatal(err)
		}
	}
	return nodes
}

func mustBeReady(t *testing.T, n *Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := n.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

// holdUntil holds a role until ctx ends, and then for as long as the deadline allows, as the doc of
// Hold lets f do.
func holdUntil(ctx context.Context, n *Node, r Role) <-chan Tenure {
	got := make(chan Tenure, 1)
	go n.Hold(ctx, r, untilDeadline(got))
	return got
}

// holdPublicUntil is holdUntil for a public role.
func holdPublicUntil(ctx context.Context, n *Node, r Role, p hold.Public) <-chan Tenure {
	got := make(chan Tenure, 1)
	go n.HoldPublic(ctx, r, p, untilDeadline(got))
	return got
}

// untilDeadline returns a function for Hold. It sends its tenure and lasts until the deadline.
func untilDeadline(got chan<- Tenure) func(context.Context, Tenure) error {
	return func(ctx context.Context, tenure Tenure) error {
		got <- tenure
		<-ctx.Done()
		time.Sleep(time.Until(tenure.Deadline()))
		return nil
	}
}

// Two voters that leave at the same moment both pass settle, and the configuration changes twice
// without a lease in between. A session whose lease comes from a majority of five is then ended by
// a majority of three that do not meet it.
func TestTwoLeavesAtOnce(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := fleet(t, net, []string{"a", "b", "c", "d", "e"}, nil)
		leader, others := leaderOf(t, nodes)
		holder, second, d, e := others[0], others[1], others[2], others[3]
		tenure := <-holdUntil(t.Context(), holder, Role{Name: "r"})
		next := holdUntil(t.Context(), second, Role{Name: "r"})
		time.Sleep(30 * time.Second) // all is quiet

		leaving := time.Now()
		for _, n := range []*Node{d, e} {
			go func() {
				n.Leave(t.Context())
			}()
		}
		time.Sleep(260 * time.Millisecond) // both wait in settle
		for _, n := range []*Node{leader, second} {
			net.Block(holder.self.Name, n.self.Name)
			net.Block(n.self.Name, holder.self.Name)
		}
		got := <-next
		t.Logf("%v after the leave began; voters %d", time.Since(leaving), len(leader.store.State().Voters))
		if left := time.Until(tenure.Deadline()); left > 0 {
			t.Errorf("the role is granted again (fence %d after %d) %v before the first holder's deadline",
				got.Fence(), tenure.Fence(), left)
		}
		net.Heal()
	})
}

// A greeting of a node's earlier process, which arrives late, makes the leader think that the
// process that runs now is gone: no write waits for it any more, and it goes on reading with its
// lease. Nothing corrects that as long as there is a leader.
func TestLateGreetingOfEarlierProcess(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		leader, others := leaderOf(t, nodes)
		n := others[0]
		old := n.members.Greeting()
		old.Incarnation = "the incarnation of a process that is dead"
		if _, err := leader.members.ServeHello(t.Context(), n.self.ID, old); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if ses := leader.store.State().Session(n.self.ID); leader.replica.Leading.Load().Acks.Gone(n.self.ID, ses) && n.leases.Valid() {
			t.Error("a minute later the leader takes a process for gone that has a lease; writes do not wait for its reads")
		}
		stale := 0
		for i := range 20 {
			value := fmt.Sprint(i)
			mustStore(t, leader, "k", value)
			if got, _ := n.storage.Load(t.Context(), "k"); string(got) != value {
				stale++
			}
			time.Sleep(time.Second)
		}
		if stale > 0 {
			t.Errorf("%d of 20 reads, on a node with a lease, are older than a write that was completed before", stale)
		}
	})
}

// When the session ends between openSession's look at the state and live's, live waits for a
// session 0 for ever.
func TestLiveWithoutSession(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		leader, others := leaderOf(t, nodes)
		n := others[0]
		// keeps the node's own loop from opening a session while this test plays it
		n.life.Leaving.Store(true)
		number := n.self.Session(n.store.State())
		end := state.Command{Node: n.self.ID, Change: state.LeaveSession{Number: number}}
		if err := leader.replica.Leading.Load().Apply(t.Context(), state.SealCommand(leader.store.State().Keys, &end), func(s *state.State) bool { return s.Number(n.self.ID) == 0 }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		// run: openSession has seen the session in the state and returned nil; the entry that ends it
		// is applied; then:
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		done := make(chan struct{})
		start := time.Now()
		go func() {
			defer close(done)
			n.members.Live(ctx, 0)
		}()
		<-done
		if took := time.Since(start); took > time.Minute {
			t.Errorf("live without a session returned after %v, when its context ended", took)
		}
	})
}

// reopen opens a closed node's directory again.
func reviewReopen(t *testing.T, n *Node) *Node {
	t.Helper()
	cfg := n.cfg
	next, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { next.Close() })
	return next
}

// After a full restart from snapshots each new leader is deposed at once, because the session of
// its last process, which the snapshot has, is not renewed.
func TestFullRestartFromSnapshot(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, latency := range Some(t, []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond}, 2) {
		for _, snapshot := range []bool{false, true} {
			t.Run(fmt.Sprint(latency, " snapshot ", snapshot), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					net := simnet.New()
					net.SetLatency(latency)
					nodes := trio(t, net, nil)
					time.Sleep(5 * time.Second)
					if snapshot {
						for _, n := range nodes {
							if err := n.replica.Raft.Load().Snapshot().Error(); err != nil {
								t.Fatal(err)
							}
						}
					}
					term := nodes[0].replica.Term()
					for _, n := range nodes {
						net.Host(n.self.Name).Kill()
						n.Close()
					}
					time.Sleep(time.Minute)
					start := time.Now()
					var again []*Node
					for _, n := range nodes {
						net.Host(n.self.Name).Revive()
						again = append(again, reviewReopen(t, n))
					}
					for _, n := range again {
						mustBeReady(t, n)
					}
					took := time.Since(start)
					time.Sleep(5 * time.Second)
					t.Logf("ready after %v, %d terms", took, again[0].replica.Term()-term)
					if d := again[0].replica.Term() - term; d > 2 {
						t.Errorf("%d elections after a full restart, ready after %v", d, took)
					}
				})
			})
		}
	}
}

// A node that restarts with a snapshot that is older than the leader's session, and needs longer
// than a lease to reach the leader, deposes it: in its own state the leader's session is the old
// one, and the others say of that one that it has lapsed.
func TestRestartWithOldSnapshot(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, latency := range Some(t, []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond}, 3) {
		for _, away := range []time.Duration{0, 700 * time.Millisecond, 760 * time.Millisecond} {
			t.Run(fmt.Sprint(latency, away), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					net := simnet.New()
					net.SetLatency(latency)
					nodes := trio(t, net, nil)
					time.Sleep(5 * time.Second)
					for _, n := range nodes {
						if err := n.replica.Raft.Load().Snapshot().Error(); err != nil {
							t.Fatal(err)
						}
					}
					_, others := leaderOf(t, nodes)
					next, late := others[0], others[1]
					next.leases.Lose(fmt.Errorf("%w: test", ErrLost)) // has another session opened
					time.Sleep(5 * time.Second)
					for leader, _ := leaderOf(t, nodes); leader != next; leader, _ = leaderOf(t, nodes) {
						if err := replica.WaitFuture(t.Context(), leader.replica.Raft.Load().LeadershipTransferToServer(raft.ServerID(next.self.ID), raft.ServerAddress(next.self.ID))); err != nil {
							t.Fatal(err)
						}
						time.Sleep(5 * time.Second)
					}
					term := next.replica.Term()
					net.Host(late.self.Name).Kill()
					late.Close()
					time.Sleep(10 * time.Second)
					net.Host(late.self.Name).Revive()
					if away > 0 {
						net.Isolate(late.self.Name)
					}
					again := reviewReopen(t, late)
					time.Sleep(away)
					net.Heal()
					start := time.Now()
					mustBeReady(t, again)
					took := time.Since(start)
					time.Sleep(5 * time.Second)
					if now := again.replica.Term(); now != term {
						t.Errorf("the return of a node deposes the leader: term %d, was %d; ready after %v", now, term, took)
					}
				})
			})
		}
	}
}

// Two nodes that leave at once hand the leadership to and fro.
func TestTwoLeavers(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		time.Sleep(5 * time.Second)
		leader, others := leaderOf(t, nodes)
		first := others[0]
		for _, srv := range leader.replica.Servers() { // the one that the leadership is offered to first
			if id := string(srv.ID); id != leader.self.ID {
				for _, n := range others {
					if n.self.ID == id {
						first = n
					}
				}
				break
			}
		}
		term := leader.replica.Term()
		start := time.Now()
		var wg sync.WaitGroup
		for _, n := range []*Node{leader, first} { // with the other one it is the same
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := n.Leave(ctx); err != nil {
					t.Errorf("%s: %v", n.self.Name, err)
				}
			})
		}
		wg.Wait()
		t.Logf("after %v, %d terms", time.Since(start), nodes[0].replica.Term()-term)
	})
}

// Leave goes on after Close, or when the node has failed, until its context ends.
func TestLeaveAfterTheEnd(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, test := range []struct {
		name string
		end  func(*Node)
	}{
		{"closed", func(n *Node) { n.Close() }},
		{"failed", func(n *Node) { n.replica.Fail(errors.New("a disk")) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := simnet.New()
				nodes := trio(t, net, nil)
				_, others := leaderOf(t, nodes)
				n := others[0]
				net.Isolate(n.self.Name)
				time.Sleep(5 * time.Second)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				start := time.Now()
				done := make(chan error, 1)
				go func() { done <- n.Leave(ctx) }()
				time.Sleep(10 * time.Second)
				test.end(n)
				err := <-done
				if took := time.Since(start); took > time.Minute {
					t.Errorf("Leave of a node that has ended returned after %v: %v", took, err)
				}
				net.Heal()
			})
		})
	}
}

// A node that has a session opened while another one falls silent: the leader's answer waits for
// the end of that one's session, the new session is not renewed meanwhile, and is ended; the node
// waits for it for another three seconds.
func TestOpenWhileAnotherDies(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	delays := []time.Duration{2, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60}
	for i := 0; i < len(delays); i += Cases(t, 1, 4) {
		after := delays[i]
		t.Run(fmt.Sprintf("%d ms", after), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := simnet.New()
				net.SetLatency(2 * time.Millisecond)
				nodes := fleet(t, net, []string{"a", "b", "c", "d", "e"}, nil)
				_, others := leaderOf(t, nodes)
				n := others[0]
				net.Host(n.self.Name).Kill()
				n.Close()
				time.Sleep(5 * time.Second) // it is gone
				net.Host(n.self.Name).Revive()
				start := time.Now()
				again := reviewReopen(t, n)
				time.Sleep(after * time.Millisecond)
				net.Isolate(others[1].self.Name)
				mustBeReady(t, again)
				took := time.Since(start)
				t.Logf("ready after %v", took)
				if took > 1500*time.Millisecond {
					t.Errorf("a node that starts while another falls silent is ready after %v", took)
				}
				net.Heal()
			})
		})
	}
}

// A member that is removed while it is ready says so, soon.
func TestRemovedWhileReady(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		leader, others := leaderOf(t, nodes)
		n := others[0]
		time.Sleep(2 * time.Second)
		if err := leader.replica.Leading.Load().Raft.RemoveServer(leader.replica.Servers()[slices.IndexFunc(leader.replica.Servers(), func(s raft.Server) bool { return string(s.ID) == n.self.ID })].ID, 0, 0).Error(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for n.life.Failure() == nil && time.Since(start) < 5*time.Minute {
			time.Sleep(10 * time.Millisecond)
		}
		t.Logf("after %v: %v", time.Since(start), n.life.Failure())
		if !errors.Is(n.life.Failure(), ErrRemoved) {
			t.Error("it does not say that it was removed")
		}
	})
}

// Small clusters come back.
func TestSmallClustersComeBack(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, names := range [][]string{{"a"}, {"a", "b"}} {
		for _, snapshot := range []bool{false, true} {
			t.Run(fmt.Sprint(len(names), snapshot), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					net := simnet.New()
					nodes := fleet(t, net, names, nil)
					check := func(what string) {
						start := time.Now()
						for _, n := range nodes {
							mustBeReady(t, n)
							if err := n.Hold(t.Context(), Role{Name: "r"}, func(context.Context, Tenure) error { return nil }); err != nil {
								t.Error(what, err)
							}
						}
						t.Log(what, time.Since(start))
					}
					for _, n := range nodes {
						n.leases.Lose(fmt.Errorf("%w: test", ErrLost))
					}
					time.Sleep(time.Second)
					check("lease lost")
					net.Isolate("a")
					time.Sleep(5 * time.Second)
					net.Heal()
					time.Sleep(time.Second)
					check("partition")
					if snapshot {
						for _, n := range nodes {
							n.replica.Raft.Load().Snapshot().Error()
						}
					}
					for i, n := range nodes {
						net.Host(n.self.Name).Kill()
						n.Close()
						net.Host(n.self.Name).Revive()
						_ = i
					}
					time.Sleep(time.Minute)
					for i, n := range nodes {
						nodes[i] = reviewReopen(t, n)
					}
					check("full restart")
				})
			})
		}
	}
}

// An entry of the failure detector that another configuration overtakes does nothing, and the
// leader waits three seconds for its effect before it looks at that session anew.
func TestFailureDetectorWhileANodeJoins(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for at := 550; at <= 610; at += Cases(t, 1, 15) {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := simnet.New()
				net.SetLatency(2 * time.Millisecond)
				nodes := trio(t, net, nil)
				time.Sleep(5 * time.Second)
				leader, others := leaderOf(t, nodes)
				tenure := <-holdUntil(t.Context(), others[0], Role{Name: "r"})
				next := holdUntil(t.Context(), others[1], Role{Name: "r"})
				time.Sleep(time.Second)
				net.Isolate(others[0].self.Name)
				start := time.Now()
				time.Sleep(time.Duration(at) * time.Millisecond)
				go leader.replica.Raft.Load().AddNonvoter("newcomer", "newcomer", 0, time.Second)
				<-next
				if took := time.Since(start); took > 1500*time.Millisecond {
					t.Errorf("the role is granted %v after its holder was cut off, and %v after its deadline", took, time.Since(tenure.Deadline()))
				}
				net.Heal()
			})
		})
	}
}

// A node whose raft is stuck while all else in it goes on kept writers waiting for as long as it
// renewed its lease.
func TestStuckRaftHoldsNobodyUp(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		leader, others := leaderOf(t, nodes)
		others[0].replica.Port.Transport().Stop() // notes and calls are not its business
		start := time.Now()
		mustStore(t, leader, "k", "1")
		if took := time.Since(start); took > 5*leader.timing.Lease {
			t.Errorf("the first write took %v", took)
		}
		if others[0].leases.Valid() {
			t.Error("the node that has missed a write has a lease")
		}
		start = time.Now()
		mustStore(t, leader, "k", "2")
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("the second write took %v", took)
		}
	})
}
