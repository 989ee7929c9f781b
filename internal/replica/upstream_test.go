package replica

import (
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

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// nullFSM is a state machine without a state.
type nullFSM struct{}

func (nullFSM) Apply(*raft.Log) any                 { return nil }
func (nullFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, io.EOF }
func (nullFSM) Restore(r io.ReadCloser) error       { return r.Close() }

// lateTransport holds back the answers to AppendEntries while hold is not nil. A process that stood
// still finds answers in its sockets in the same way.
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

// bareTrio starts three instances of raft without this package. The first one leads. If its lease
// is longer than the timeouts of the others, it behaves like a leader whose clock stood still.
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

// raft's VerifyLeader counts answers to questions that were put before the read began. So a leader
// that was replaced while it stood still takes itself for current. ReadIndex.Confirm asks anew.
func TestVerifyLeaderOfBareRaft(t *testing.T) {
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
}

// A candidate that was told to stand, and lost, stays a candidate although it hears the leader of
// its term, and cannot be told to stand again. A request for its vote in a later term ends that:
// see rafttransport. It does not get the vote.
func TestLostCandidacyOfBareRaft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rafts, transports, _ := bareTrio(t, 5*time.Second)
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("0"), Addr: []byte("0")}
		stand := func(i raft.ServerID) {
			t.Helper()
			if err := transports[0].TimeoutNow(i, raft.ServerAddress(i), &raft.TimeoutNowRequest{RPCHeader: header}, &raft.TimeoutNowResponse{}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 2 { // nobody hears of the candidacy
			transports[2].Disconnect(transports[i].LocalAddr())
		}
		stand("2")
		time.Sleep(10 * time.Millisecond)
		stand("1") // in the same term
		time.Sleep(10 * time.Millisecond)
		for i := range 2 {
			transports[2].Connect(transports[i].LocalAddr(), transports[i])
		}
		time.Sleep(300 * time.Millisecond)
		term := rafts[1].CurrentTerm()
		if rafts[2].State() != raft.Candidate || rafts[2].CurrentTerm() != term || rafts[2].LastIndex() != rafts[1].LastIndex() {
			t.Fatalf("raft no longer has the fault: %v", rafts[2].Stats())
		}
		stand("2")
		time.Sleep(100 * time.Millisecond)
		if now := rafts[2].CurrentTerm(); now != term {
			t.Fatalf("raft no longer has the fault: the term is %d, and was %d", now, term)
		}
		var vote raft.RequestVoteResponse
		err := transports[1].RequestVote("2", "2", &raft.RequestVoteRequest{RPCHeader: header, Term: term + 1, LeadershipTransfer: true}, &vote)
		if err != nil || vote.Granted || rafts[2].State() != raft.Follower {
			t.Fatalf("%v, %+v, %v", err, vote, rafts[2].State())
		}
		stand("2")
		time.Sleep(100 * time.Millisecond)
		if rafts[2].State() != raft.Leader {
			t.Errorf("it does not lead: %v", rafts[2].Stats())
		}
	})
}

// Two transfers of the leadership to a peer that cannot be reached, and the loss of the leadership,
// leave raft refusing every write for ever (hashicorp/raft#696). Elections.Transfer never makes the
// second one.
func TestTransferTwiceInBareRaft(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	const child, refused = "FLOTILLA_TEST_TRANSFER", "raft refuses every write"
	if os.Getenv(child) != "" {
		transferTwiceBare(t, refused)
		return
	}
	// In a process of its own: goroutines of raft stay behind, and no bubble ends then.
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTransferTwiceInBareRaft$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	out, _ := cmd.CombinedOutput()
	if !strings.Contains(string(out), refused) {
		t.Errorf("raft no longer has the fault:\n%s", out)
	}
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
			// Both transfers are to fall into one of the waits.
			time.Sleep(time.Minute + time.Duration(try)*700*time.Millisecond)
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
