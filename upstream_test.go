package flotilla

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

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

// nullFSM is a state machine without a state.
type nullFSM struct{}

func (nullFSM) Apply(*raft.Log) any                 { return nil }
func (nullFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, io.EOF }
func (nullFSM) Restore(r io.ReadCloser) error       { return r.Close() }

// lateTransport keeps the answers to AppendEntries back while hold is not nil, as a process that stood still finds them in its
// sockets.
type lateTransport struct {
	*raft.InmemTransport
	hold *atomic.Pointer[chan struct{}]
}

func (d *lateTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := d.InmemTransport.AppendEntries(id, target, args, resp)
	if hold := d.hold.Load(); hold != nil {
		<-*hold
	}
	return err
}

func (d *lateTransport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// bareTrio is three instances of raft as it comes. With a lease longer than the time-outs of the others the first one, which leads,
// stands for one whose clock stood still.
func bareTrio(t *testing.T, lease time.Duration) (rafts []*raft.Raft, transports []*raft.InmemTransport, hold *atomic.Pointer[chan struct{}]) {
	t.Helper()
	hold = new(atomic.Pointer[chan struct{}])
	var conf raft.Configuration
	for i := range 3 {
		id := strconv.Itoa(i)
		_, trans := raft.NewInmemTransportWithTimeout(raft.ServerAddress(id), time.Second)
		transports = append(transports, trans)
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	for i, trans := range transports {
		for j, other := range transports {
			if i != j {
				trans.Connect(other.LocalAddr(), other)
			}
		}
		c := raft.DefaultConfig()
		c.LocalID = conf.Servers[i].ID
		c.Logger = hclog.NewNullLogger()
		var tr raft.Transport = trans
		if i == 0 {
			c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = lease, lease, lease
			tr = &lateTransport{trans, hold}
		}
		store := raft.NewInmemStore()
		snaps := raft.NewInmemSnapshotStore()
		if err := raft.BootstrapCluster(c, store, store, snaps, tr, conf); err != nil {
			t.Fatal(err)
		}
		r, err := raft.NewRaft(c, nullFSM{}, store, store, snaps, tr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Shutdown().Error() })
		rafts = append(rafts, r)
	}
	elect(t, rafts, transports, 0)
	return rafts, transports, hold
}

// elect has raft i win an election.
func elect(t *testing.T, rafts []*raft.Raft, transports []*raft.InmemTransport, i int) {
	t.Helper()
	for range 100 {
		if rafts[i].State() == raft.Leader {
			return
		}
		from := transports[(i+1)%3]
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}
		from.TimeoutNow(raft.ServerID(strconv.Itoa(i)), transports[i].LocalAddr(), &raft.TimeoutNowRequest{RPCHeader: header}, &raft.TimeoutNowResponse{})
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("raft %d does not win", i)
}

// raft's VerifyLeader counts answers to questions that were put before the read began. So a leader that has been replaced while
// it stood still takes itself for current; confirm asks anew.
func TestVerifyLeaderOfTheOld(t *testing.T) {
	t.Run("bare raft", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			rafts, transports, hold := bareTrio(t, 5*time.Second)
			time.Sleep(2 * time.Second)
			gate := make(chan struct{})
			hold.Store(&gate)
			time.Sleep(time.Second) // every question is out, every answer kept
			transports[1].Disconnect("0")
			transports[2].Disconnect("0")
			elect(t, rafts, transports, 1)
			if err := rafts[1].Apply([]byte("newer"), time.Second).Error(); err != nil {
				t.Fatal(err)
			}
			read := rafts[0].VerifyLeader()
			time.Sleep(10 * time.Millisecond)
			close(gate)
			if err := read.Error(); err != nil {
				t.Fatalf("VerifyLeader no longer has the fault: %v", err)
			}
		})
	})
	t.Run("confirm", func(t *testing.T) {
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
	})
}

// Two transfers of leadership to a peer that cannot be reached, and the loss of leadership, leave raft refusing every write for
// ever (hashicorp/raft#696). The second one is never made.
func TestTransferTwice(t *testing.T) {
	const child, refused = "FLOTILLA_TEST_TRANSFER", "raft refuses every write"
	if os.Getenv(child) != "" {
		transferTwiceBare(t, refused)
		return
	}
	t.Run("bare raft", func(t *testing.T) {
		// In a process of its own: goroutines of raft stay behind, and no bubble ends then.
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTransferTwice$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), refused) {
			t.Errorf("raft no longer has the fault:\n%s", out)
		}
	})
	t.Run("transfer", func(t *testing.T) {
		for range 5 {
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
	})
}

func transferTwiceBare(t *testing.T, refused string) {
	for try := range 30 {
		synctest.Test(t, func(t *testing.T) {
			rafts, transports, _ := bareTrio(t, time.Second)
			// A peer that has long been away: replication to it waits for ten seconds between tries.
			transports[0].Disconnect("1")
			transports[1].Disconnect("0")
			if err := rafts[0].Apply([]byte("1"), time.Second).Error(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute + time.Duration(try)*700*time.Millisecond) // both transfers are to fall into one of the waits
			if rafts[0].State() != raft.Leader {
				return
			}
			for range 2 {
				rafts[0].LeadershipTransferToServer("1", "1").Error()
				time.Sleep(50 * time.Millisecond)
			}
			transports[0].Disconnect("2")
			transports[2].Disconnect("0")
			time.Sleep(20 * time.Second)
			for i, trans := range transports {
				for j, other := range transports {
					if i != j {
						trans.Connect(other.LocalAddr(), other)
					}
				}
			}
			time.Sleep(20 * time.Second)
			elect(t, rafts, transports, 0)
			time.Sleep(time.Minute)
			if rafts[0].State() == raft.Leader && rafts[0].Apply([]byte("2"), time.Second).Error() == raft.ErrLeadershipTransferInProgress {
				fmt.Println(refused)
			}
		})
	}
}

// A snapshot that conflicts with the last entry of the log can be taken in only by another instance of raft.
func TestRaftIsStartedAnew(t *testing.T) {
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
	synctest.Test(t, func(t *testing.T) {
		var once atomic.Bool
		nodes := trio(t, simnet.New(), func(c *Config) {
			c.diskFault = func(op string) error {
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

// A disk that fails ends this node's part in the cluster, not the program that it lives in: it goes on answering reads.
func TestFailedNodeGoesOnServing(t *testing.T) {
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
	synctest.Test(t, func(t *testing.T) {
		nodes := trio(t, simnet.New(), nil)
		l, others := leaderOf(t, nodes)
		request := replica.ApplyRequest{Proposals: []replica.Proposal{{Session: 1, Seq: 1, Entry: []byte("garbage")}}}
		_, err := others[0].replica.Port.Call(t.Context(), l.self.ID, rpc.Apply, request.Encode())
		var answer *wire.CallError
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
