package flotilla_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// writes counts what nodes write to their connections.
type writes struct{ n atomic.Int64 }

type countedConn struct {
	net.Conn
	writes *writes
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.writes.n.Add(1)
	return c.Conn.Write(b)
}

type countedListener struct {
	net.Listener
	writes *writes
}

func (l *countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedConn{c, l.writes}, nil
}

// use counts what a node writes to its peers.
func (w *writes) use(cfg *flotilla.Config) {
	dial, listen := cfg.PeerDial, cfg.PeerListen
	cfg.PeerDial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &countedConn{c, w}, nil
	}
	cfg.PeerListen = func(network, addr string) (net.Listener, error) {
		l, err := listen(network, addr)
		if err != nil {
			return nil, err
		}
		return &countedListener{l, w}, nil
	}
}

// Each packet wakes the process that gets it, and the machine. So nodes at rest send each other the
// requests for their leases, with the grants in them, and the leader a heartbeat along with every
// sixth of those; and no more than that.
func TestIdleTraffic(t *testing.T) {
	flotilla.SkipShort(t)
	synctest.Parallel(t)
	for _, busy := range []bool{false, true} {
		name := "at rest"
		if busy {
			name = "a minute after calls"
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var w writes
				c := clustertest.New(t, 3, func(_ int, cfg *flotilla.Config) { w.use(cfg) })
				c.Settle()
				time.Sleep(3 * time.Minute) // connections that no call uses are closed
				if busy {
					for _, n := range c.Nodes {
						if err := n.Storage().Store(t.Context(), "k", []byte("v")); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(time.Second)
				}
				const long = 50 * time.Second
				lan := timing.Of(600 * time.Millisecond)
				before := w.n.Load()
				time.Sleep(long)
				got := w.n.Load() - before
				renewals := int64(long/lan.Renewal()) * 3 * 2
				heartbeats := int64(long/lan.Beat()) * 2 * 2   // with their answers
				commits := int64(long/lan.Attempt()) * 2 * 2   // raft repeats the last one, see CommitTimeout
				most := renewals + heartbeats + commits + 2*12 // that begin within the time
				t.Logf("%d writes; %d renewals, %d heartbeats and at most %d others", got, renewals, heartbeats, commits)
				if got > most {
					t.Errorf("%d writes within %v; %d are enough", got, long, most)
				}
			})
		})
	}
}
