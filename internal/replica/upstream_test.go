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
