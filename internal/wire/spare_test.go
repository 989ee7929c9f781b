package wire

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A connection that is kept ready is used by the first request, and there is one at most. One to an
// earlier process is replaced when a later one connects.
func TestSpareConnections(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		var dials atomic.Int32
		a := open(t, n, 1, func(c *Config) {
			dial := c.Dial
			c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				dials.Add(1)
				return dial(ctx, network, addr)
			}
		})
		process := func(name string) *Port {
			p := open(t, n, 2, func(c *Config) { c.Incarnation = name })
			ack(p)
			return p
		}
		ack(a)
		made := func(when string, want int32) {
			t.Helper()
			time.Sleep(10 * time.Millisecond)
			if got := dials.Swap(0); got != want {
				t.Errorf("%s there are %d dials, want %d", when, got, want)
			}
		}
		vote := func() {
			t.Helper()
			req := &raft.RequestVoteRequest{RPCHeader: header(1), Term: 2}
			if err := a.Transport().RequestVote(raft.ServerID(nodeID(2)), "", req, new(raft.RequestVoteResponse)); err != nil {
				t.Fatal(err)
			}
		}
		connect := func(b *Port) {
			t.Helper()
			if err := send(b, 1, &raft.AppendEntriesRequest{RPCHeader: header(2), Term: 1}); err != nil {
				t.Fatal(err)
			}
		}
		a.Transport().Prepare(nodeID(2))
		made("when the peer is not there", 1)
		first := process("00000001")
		connect(first)
		made("when it connects", 1)
		for range 3 {
			a.Transport().Prepare(nodeID(2))
		}
		connect(first)
		made("when there is a connection", 0)
		n.Host("b").Crash()
		first.Close()
		made("when the peer dies", 1) // a probe
		n.Host("b").Revive()
		second := process("00000002")
		connect(second)
		made("when its next process connects", 1)
		vote()
		made("for a request", 0)
		a.Transport().Prepare(nodeID(2))
		made("when raft has a connection", 0)
	})
}
