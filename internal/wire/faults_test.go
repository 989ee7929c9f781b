package wire

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// Each of these tests shows a fault of raft v1.7.3 over its own NetworkTransport, and that it is
// absent through a Port. If the first half fails one day, upstream has fixed the fault.

// both runs f in a bubble for bare raft and for ours.
func both(t *testing.T, f func(t *testing.T, bare bool)) {
	for _, bare := range []bool{true, false} {
		name := "wire"
		if bare {
			name = "bare"
		}
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { f(t, bare) }) })
	}
}

// A leader that has stood still learns of a new leader from a heartbeat, on the transport's
// goroutine. Its main loop still waits in leaderLoop. It then stamps the next entry with the new
// leader's term: https://github.com/hashicorp/raft/issues/695.
func TestDivergenceAfterStall(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	diverged := map[bool]int{}
	const runs = 3
	for range runs {
		both(t, func(t *testing.T, bare bool) {
			// Node 1 leads first. Its main loop must not notice by itself that it is alone: it is
			// meant to stand still.
			c := newCluster(t, bare, func(i int, c *raft.Config) {
				if i == 1 {
					c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = time.Hour, time.Hour, time.Hour
				}
			})
			old := c.nodes[0]
			for c.leads() != old {
				if err := c.leader().raft.LeadershipTransferToServer(raft.ServerID(nodeID(1)), c.address(1)).Error(); err != nil {
					t.Fatal(err)
				}
				c.wait(time.Second, func() bool { return c.leads() == old })
			}
			c.apply(old, 3)
			time.Sleep(time.Second)
			// The heartbeat comes first. That is the usual case, because replication is retried at
			// longer and longer intervals.
			c.late.Store(true)
			for _, n := range c.others(old) {
				if b, ok := n.trans.(*bareTransport); ok {
					b.CloseStreams() // otherwise requests for votes would wait in them
				}
			}
			time.Sleep(10 * time.Millisecond)
			c.net.Isolate("a")
			next := c.leader(c.others(old)...)
			time.Sleep(2 * time.Minute) // the intervals of the old leader grow too
			c.net.Heal()
			for old.raft.State() == raft.Leader {
				time.Sleep(20 * time.Microsecond)
			}
			old.raft.Apply([]byte("lost"), time.Second)
			c.late.Store(false)
			time.Sleep(30 * time.Second)
			c.apply(next, 1)
			time.Sleep(time.Second)
			if old.raft.CommitIndex() != next.raft.CommitIndex() {
				t.Fatalf("commit index %d, leader's %d", old.raft.CommitIndex(), next.raft.CommitIndex())
			}
			if differ(t, old, next) != 0 {
				diverged[bare]++
			}
		})
	}
	t.Logf("logs diverged in %d of %d runs on bare raft, in %d through us", diverged[true], runs, diverged[false])
	if diverged[true] == 0 {
		t.Error("bare raft is sound")
	}
	if diverged[false] != 0 {
		t.Error("committed logs diverged")
	}
}

// After a refused AppendEntries in a pipeline the sender waits for a decoder that is gone. The
// follower gets no more entries, and heartbeats keep it from standing for election:
// https://github.com/hashicorp/raft/issues/612.
func TestPipelineDeadlock(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	both(t, func(t *testing.T, bare bool) {
		c := newCluster(t, bare, nil)
		c.net.SetLatency(5 * time.Millisecond)
		leader := c.leader()
		follower := c.others(leader)[0]
		for k := range 1000 {
			leader.raft.Apply([]byte("x"), 0)
			if k%50 == 49 {
				follower.disk.failNext(1)
			}
			time.Sleep(time.Millisecond)
		}
		follower.disk.failNext(0)
		time.Sleep(time.Minute)
		if c.leads() != leader {
			t.Fatal("the leader has changed")
		}
		behind := leader.raft.CommitIndex() - follower.raft.CommitIndex()
		if bare && behind == 0 {
			t.Error("bare raft is sound")
		}
		if !bare && behind != 0 {
			t.Errorf("the follower is %d entries behind", behind)
		}
	})
}

// A leader whose disk hangs commits nothing, but goes on sending heartbeats:
// https://github.com/hashicorp/raft/issues/503.
func TestHangingDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	both(t, func(t *testing.T, bare bool) {
		c := newCluster(t, bare, nil)
		old := c.leader()
		c.apply(old, 3)
		old.disk.setHang(make(chan struct{}))
		old.raft.Apply([]byte("x"), 0)
		d := c.wait(2*time.Minute, func() bool { return c.leads(c.others(old)...) != nil })
		if bare {
			if d < 2*time.Minute {
				t.Errorf("bare raft replaced the leader after %v", d)
			}
			return
		}
		t.Logf("replaced after %v", d)
		if d > 5*time.Second {
			t.Errorf("the leader was replaced after %v", d)
		}
		c.apply(c.leader(c.others(old)...), 3)
	})
}

// After one AppendEntries with a term near 2^64 no node can be elected when the leader is lost.
func TestForgedTerm(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	both(t, func(t *testing.T, bare bool) {
		c := newCluster(t, bare, nil)
		leader := c.leader()
		c.apply(leader, 3)
		victim := c.others(leader)[0]
		// The leader itself sends it: through a Port no other node could.
		req := &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{
				ProtocolVersion: 3,
				ID:              []byte(nodeID(leader.i)),
				Addr:            []byte(c.address(leader.i)),
			},
			Term: math.MaxUint64 - 1,
		}
		err := leader.trans.AppendEntries(
			raft.ServerID(nodeID(victim.i)),
			c.address(victim.i),
			req,
			new(raft.AppendEntriesResponse),
		)
		if !bare && err == nil {
			t.Error("the forged term was believed")
		}
		time.Sleep(10 * time.Second)
		c.crash(c.leader().i)
		d := c.wait(5*time.Minute, func() bool {
			l := c.leads()
			return l != nil && l.raft.Apply([]byte("x"), 0).Error() == nil
		})
		if bare && d < 5*time.Minute {
			t.Errorf("bare raft wrote after %v", d)
		}
		if !bare && d > 10*time.Second {
			t.Errorf("the first write came after %v", d)
		}
	})
}

// raft waits up to 10 s between two attempts to replicate to a node that was down for a while.
func TestReturnIsCurrentAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	took := map[bool][]time.Duration{}
	for run := range 5 {
		both(t, func(t *testing.T, bare bool) {
			c := newCluster(t, bare, nil)
			leader := c.leader()
			back := c.others(leader)[0]
			c.crash(back.i)
			for range 60 {
				c.apply(leader, 1)
				time.Sleep(time.Second + time.Duration(run)*37*time.Millisecond)
			}
			c.start(back.i)
			want := leader.raft.CommitIndex()
			took[bare] = append(took[bare], c.wait(time.Minute, func() bool { return back.raft.CommitIndex() >= want }))
		})
	}
	slices.Sort(took[true])
	slices.Sort(took[false])
	t.Logf("current after %v on bare raft, %v through us", took[true], took[false])
	if took[true][2] < 2*time.Second {
		t.Error("bare raft is quick")
	}
	if d := took[false][4]; d > time.Second {
		t.Errorf("current after %v", d)
	}
}

// A fault of the same kind: raft's main loop waits for the rest of a snapshot from a dead leader.
var errVanished = errors.New("vanished")

// halting is the data of a snapshot. It stops half-way until the test lets the leader fail.
type halting struct {
	n    int
	halt chan struct{}
}

func (h *halting) Read(b []byte) (int, error) {
	if h.n == 0 {
		<-h.halt
		return 0, errVanished
	}
	n := min(h.n, len(b))
	h.n -= n
	return n, nil
}

func TestSnapshotThatStops(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, false, nil)
		leader := c.leader()
		c.apply(leader, 3)
		victim := c.others(leader)[0]
		servers := leader.raft.GetConfiguration().Configuration()
		data := &halting{n: 1 << 20, halt: make(chan struct{})}
		req := &raft.InstallSnapshotRequest{
			RPCHeader: raft.RPCHeader{
				ProtocolVersion: 3,
				ID:              []byte(nodeID(leader.i)),
				Addr:            []byte(nodeID(leader.i)),
			},
			SnapshotVersion: 1,
			Term:            leader.raft.CurrentTerm(),
			LastLogIndex:    leader.raft.LastIndex(),
			LastLogTerm:     leader.raft.CurrentTerm(),
			Configuration:   raft.EncodeConfiguration(servers),
			Size:            2 << 20,
		}
		done := make(chan error, 1)
		go func() {
			done <- leader.wire.InstallSnapshot(raft.ServerID(nodeID(victim.i)), "", req, new(raft.InstallSnapshotResponse), data)
		}()
		c.apply(leader, 3)
		time.Sleep(2*rpcTimeout + time.Second)
		// The victim's main loop answers again, although the sender still has the connection open.
		if d := c.wait(time.Minute, func() bool { return victim.raft.CommitIndex() == leader.raft.CommitIndex() }); d > 10*time.Second {
			t.Errorf("the follower stood still for %v", d)
		}
		close(data.halt)
		if err := <-done; err == nil || err.Error() != "vanished" {
			t.Errorf("half a snapshot was installed: %v", err)
		}
	})
}
