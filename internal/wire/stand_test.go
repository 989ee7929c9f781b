package wire

import (
	"cmp"
	"fmt"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// A candidate that another node has defeated becomes a follower before it is told to stand. raft
// would ignore that otherwise: see TestLostCandidacyOfBareRaft of package replica. What comes when
// yet another node leads is late, and does not reach raft.
func TestTimeoutNowReachesRaft(t *testing.T) {
	synctest.Parallel(t)
	told := &raft.TimeoutNowRequest{RPCHeader: header(1)}
	for name, test := range map[string]struct {
		leader    string
		candidate bool
		want      []any // what raft gets
		err       string
	}{
		"follower":           {nodeID(1), false, []any{told}, ""},
		"no leader":          {"", false, []any{told}, ""},
		"candidate":          {"", true, []any{told}, ""},
		"defeated candidate": {nodeID(1), true, []any{&raft.RequestVoteRequest{RPCHeader: header(1), Term: 8, LeadershipTransfer: true}, told}, ""},
		"another leader":     {nodeID(3), true, nil, "another node leads"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New()
				a, b := open(t, n, 1, nil), open(t, n, 2, func(c *Config) {
					c.Term = func() uint64 { return 7 }
					c.Standing = func() (string, bool) { return test.leader, test.candidate }
				})
				var got []any
				rpcs, end := b.Transport().Consumer(), make(chan struct{})
				var consumer sync.WaitGroup
				consumer.Go(func() {
					for {
						select {
						case rpc := <-rpcs:
							got = append(got, rpc.Command)
							rpc.Respond(&raft.TimeoutNowResponse{}, nil)
						case <-end:
							return
						}
					}
				})
				err := a.Transport().TimeoutNow(raft.ServerID(nodeID(2)), "", told, new(raft.TimeoutNowResponse))
				if text := fmt.Sprint(err); text != cmp.Or(test.err, "<nil>") {
					t.Errorf("the sender gets %v, want %q", err, test.err)
				}
				close(end)
				consumer.Wait()
				if diff := gocmp.Diff(test.want, got); diff != "" {
					t.Errorf("raft got (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// raft waits for the answer to a TimeoutNow for a moment only.
func TestTimeoutNowDoesNotWait(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a := open(t, n, 1, nil)
		ack(open(t, n, 2, nil))
		if err := send(a, 2, entriesBeat()); err != nil {
			t.Fatal(err)
		}
		n.Isolate(hostName(2))
		start := time.Now()
		if err := a.Transport().TimeoutNow(raft.ServerID(nodeID(2)), "", &raft.TimeoutNowRequest{RPCHeader: header(1)}, new(raft.TimeoutNowResponse)); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != timing.StandAnswer {
			t.Errorf("took %v", took)
		}
	})
}
