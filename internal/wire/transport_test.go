package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
	"github.com/flotilla-ha/flotilla/internal/wire/rafttransport"
)

// ack answers the RPCs that reach p's raft with success, and counts them, until p is closed.
func ack(p *Port) *atomic.Int32 {
	var n atomic.Int32
	rpcs := p.Transport().Consumer()
	go func() {
		for {
			select {
			case r := <-rpcs:
				n.Add(1)
				switch c := r.Command.(type) {
				case *raft.AppendEntriesRequest:
					r.Respond(&raft.AppendEntriesResponse{Term: c.Term, Success: true}, nil)
				case *raft.RequestVoteRequest:
					r.Respond(&raft.RequestVoteResponse{Term: c.Term, Granted: true}, nil)
				default:
					r.Respond(nil, errors.New("100% unexpected"))
				}
			case <-p.life.Done():
				return
			}
		}
	}()
	return &n
}

func header(i int) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(nodeID(i)), Addr: []byte(nodeID(i))}
}

// entries is an AppendEntries of node 1 in term 1 with the entries from..to.
func entries(from, to uint64) *raft.AppendEntriesRequest {
	req := &raft.AppendEntriesRequest{
		RPCHeader:         header(1),
		Term:              1,
		PrevLogEntry:      from - 1,
		PrevLogTerm:       1,
		LeaderCommitIndex: 1,
	}
	for i := from; i <= to; i++ {
		req.Entries = append(req.Entries, &raft.Log{Index: i, Term: 1})
	}
	return req
}

func send(p *Port, to int, req *raft.AppendEntriesRequest) error {
	return p.Transport().AppendEntries(raft.ServerID(nodeID(to)), "", req, new(raft.AppendEntriesResponse))
}

func TestTransportRefuses(t *testing.T) {
	synctest.Parallel(t)
	beat := func(change func(*raft.AppendEntriesRequest)) *raft.AppendEntriesRequest {
		r := &raft.AppendEntriesRequest{RPCHeader: header(1), Term: 5}
		change(r)
		return r
	}
	for _, c := range []struct {
		name string
		req  *raft.AppendEntriesRequest
		want string // part of the error; empty: none
	}{
		{"a heartbeat", beat(func(r *raft.AppendEntriesRequest) {}), ""},
		{"a term not too far ahead", beat(func(r *raft.AppendEntriesRequest) { r.Term = 7 + 1<<20 }), ""},
		{"a term too far ahead", beat(func(r *raft.AppendEntriesRequest) { r.Term = 8 + 1<<20 }), "not plausible"},
		{"another's ID", beat(func(r *raft.AppendEntriesRequest) { r.ID = []byte(nodeID(3)) }), "in the name of another"},
		{"another's address", beat(func(r *raft.AppendEntriesRequest) { r.Addr = []byte(nodeID(3)) }), "in the name of another"},
		{"no ID", beat(func(r *raft.AppendEntriesRequest) { r.RPCHeader = raft.RPCHeader{} }), "in the name of another"},
		{"an entry that is nil", beat(func(r *raft.AppendEntriesRequest) { r.Entries = []*raft.Log{nil} }), "not in order"},
		{"a gap", beat(func(r *raft.AppendEntriesRequest) { r.Entries = []*raft.Log{{Index: 2}} }), "not in order"},
		{"an entry of a later term", beat(func(r *raft.AppendEntriesRequest) { r.Entries = []*raft.Log{{Index: 1, Term: 6}} }), "not in order"},
		{"an unknown type", beat(func(r *raft.AppendEntriesRequest) { r.Entries = []*raft.Log{{Index: 1, Type: 99}} }), "not known"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New()
				a := open(t, n, 1, nil)
				b := open(t, n, 2, func(c *Config) { c.Term = func() uint64 { return 7 } })
				taken := ack(b)
				err := send(a, 2, c.req)
				switch {
				case c.want == "" && (err != nil || taken.Load() != 1):
					t.Fatal(err, taken.Load())
				case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || taken.Load() != 0):
					t.Fatal(err, taken.Load())
				}
			})
		})
	}
}

func TestTransportRefusesAllKinds(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a := open(t, n, 1, nil).Transport()
		b := open(t, n, 2, func(c *Config) { c.Term = func() uint64 { return 7 } })
		taken := ack(b)
		const far = 1 << 40
		h, id := header(1), raft.ServerID(nodeID(2))
		data := make([]byte, 1<<20) // must not be taken for RPCs
		for name, err := range map[string]error{
			"vote":     a.RequestVote(id, "", &raft.RequestVoteRequest{RPCHeader: h, Term: far}, new(raft.RequestVoteResponse)),
			"pre-vote": a.RequestPreVote(id, "", &raft.RequestPreVoteRequest{RPCHeader: h, Term: far}, new(raft.RequestPreVoteResponse)),
			"timeout":  a.TimeoutNow(id, "", &raft.TimeoutNowRequest{RPCHeader: header(3)}, new(raft.TimeoutNowResponse)),
			"snapshot": a.InstallSnapshot(id, "", &raft.InstallSnapshotRequest{RPCHeader: h, Term: far, Size: int64(len(data))},
				new(raft.InstallSnapshotResponse), strings.NewReader(string(data))),
		} {
			want := "is not plausible"
			if name == "timeout" {
				want = "sent an RPC in the name of another"
			}
			if err == nil || !strings.Contains(err.Error(), want) || taken.Load() != 0 {
				t.Error(name, err, taken.Load())
			}
		}
		err := a.TimeoutNow(id, "", &raft.TimeoutNowRequest{RPCHeader: h}, new(raft.TimeoutNowResponse))
		if err == nil || !strings.Contains(err.Error(), "nexpected") || taken.Load() != 1 {
			t.Fatal(err)
		}
		if _, ok := a.AppendEntriesPipeline(id, ""); ok != raft.ErrPipelineReplicationNotSupported {
			t.Fatal(ok)
		}
	})
}

func TestImplausibleAnswer(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a := open(t, n, 1, func(c *Config) { c.Term = func() uint64 { return 1 } })
		b := open(t, n, 2, nil)
		ack(b)
		req := &raft.RequestVoteRequest{RPCHeader: header(1), Term: 1 << 30}
		if err := a.Transport().RequestVote(raft.ServerID(nodeID(2)), "", req, new(raft.RequestVoteResponse)); err == nil ||
			!strings.Contains(err.Error(), "is not plausible") {
			t.Fatal("believed:", err)
		}
	})
}

func TestNotAdmitted(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		var member atomic.Bool
		a := open(t, n, 1, nil)
		b := open(t, n, 2, func(c *Config) {
			c.Admit = func(id string) error {
				if member.Load() {
					return nil
				}
				return fmt.Errorf("%s is 0%% member", id)
			}
		})
		// raft is not running there yet.
		var refused *RefusedError
		if err := send(a, 2, entriesBeat()); !errors.As(err, &refused) {
			t.Fatal(err)
		}
		ack(b)
		if err := send(a, 2, entriesBeat()); !errors.As(err, &refused) || refused.Reason != nodeID(1)+" is 0% member" {
			t.Fatal(err)
		}
		// It may call all the same.
		if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil {
			t.Fatal(err)
		}
		member.Store(true)
		if err := send(a, 2, entriesBeat()); err != nil {
			t.Fatal(err)
		}
		// Also on an existing connection.
		member.Store(false)
		if err := send(a, 2, entriesBeat()); err == nil || err.Error() != nodeID(1)+" is 0% member" {
			t.Fatal(err)
		}
	})
}

func entriesBeat() *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{RPCHeader: header(1), Term: 1}
}

func TestMatch(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		var grew []string
		a := open(t, n, 1, func(c *Config) { c.Matched = func(id string) { grew = append(grew, id) } })
		ack(open(t, n, 2, nil))
		at := a.Transport()
		if !at.Contact(nodeID(2)).IsZero() {
			t.Fatal("contact with nobody")
		}
		for _, c := range []struct {
			req   *raft.AppendEntriesRequest
			index uint64
			grew  int
		}{
			{entriesBeat(), 0, 0},
			{entries(4, 3), 3, 1},
			{entries(4, 6), 6, 2},
			{entries(4, 5), 6, 2}, // repeated, late
			{entries(7, 7), 7, 3},
		} {
			if err := send(a, 2, c.req); err != nil {
				t.Fatal(err)
			}
			if i, term := at.Match(nodeID(2), 1); i != c.index || (i > 0) != (term == 1) || len(grew) != c.grew {
				t.Fatalf("match %d, %d after %d calls, want %d after %d", i, term, len(grew), c.index, c.grew)
			}
		}
		if time.Since(at.Contact(nodeID(2))) > time.Millisecond {
			t.Fatal(at.Contact(nodeID(2)))
		}
		if i, term := at.Match(nodeID(2), 2); i != 0 || term != 0 {
			t.Fatal("a match of another leader's term", i, term)
		}
	})
}

// A peer answers Tell when it has applied the commit. It answers other requests at once.
func TestTell(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a := open(t, n, 1, nil)
		applied := make(chan error)
		var asked atomic.Uint64
		ack(open(t, n, 2, func(c *Config) {
			c.Applied = func(index uint64) error {
				asked.Store(index)
				return <-applied
			}
		}))
		told := raft.AppendEntriesRequest{
			RPCHeader:         header(1),
			Term:              1,
			PrevLogEntry:      3,
			PrevLogTerm:       1,
			LeaderCommitIndex: 2,
		}
		for _, outcome := range []error{nil, errors.New("100% not applied")} {
			result := make(chan bool, 1)
			go func() { result <- a.Transport().Tell(nodeID(2), told) }()
			time.Sleep(time.Second)
			if len(result) > 0 || asked.Load() != 2 {
				t.Fatalf("answered before it was applied, or asked for %d", asked.Load())
			}
			applied <- outcome
			if got := <-result; got != (outcome == nil) {
				t.Errorf("Tell says %v after %v", got, outcome)
			}
		}
		same := told
		if err := send(a, 2, &same); err != nil {
			t.Errorf("raft's own request: %v", err)
		}
	})
}

func TestNotSentWhileStalled(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		var stalled atomic.Bool
		a := open(t, n, 1, func(c *Config) { c.Stalled = stalled.Load })
		taken := ack(open(t, n, 2, nil))
		stalled.Store(true)
		for _, req := range []*raft.AppendEntriesRequest{entriesBeat(), entries(1, 1)} {
			if err := send(a, 2, req); !errors.Is(err, rafttransport.ErrStalled) || taken.Load() != 0 {
				t.Fatal(err)
			}
		}
		// Votes still work, both ways.
		if err := a.Transport().RequestVote(raft.ServerID(nodeID(2)), "", &raft.RequestVoteRequest{RPCHeader: header(1)}, new(raft.RequestVoteResponse)); err != nil {
			t.Fatal(err)
		}
		stalled.Store(false)
		if err := send(a, 2, entries(1, 1)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestStop(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a, b := open(t, n, 1, nil), open(t, n, 2, nil)
		ack(a)
		taken := ack(b)
		if err := errors.Join(send(a, 2, entriesBeat())); err != nil {
			t.Fatal(err)
		}
		bt := b.Transport()
		bt.Stop()
		if err := send(a, 2, entriesBeat()); err != io.EOF || taken.Load() != 1 {
			t.Fatal(err, taken.Load())
		}
		var refused *RefusedError
		if err := send(a, 2, entriesBeat()); !errors.As(err, &refused) || taken.Load() != 1 {
			t.Fatal(err, taken.Load())
		}
		if err := send(b, 1, entriesBeat()); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		if _, err := bt.Inject(t.Context(), &raft.TimeoutNowRequest{}); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil {
			t.Fatal("calls go on", err)
		}
		// The next run of raft gets a new Transport.
		if b.Transport() != bt {
			t.Fatal("another transport before Close")
		}
		bt.Close()
		taken = ack(b)
		if err := send(a, 2, entriesBeat()); err != nil || taken.Load() != 1 {
			t.Fatal(err, taken.Load())
		}
	})
}

func TestInject(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a := open(t, n, 1, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Transport().Inject(ctx, entriesBeat()); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		ack(a)
		got, err := a.Transport().Inject(t.Context(), entriesBeat())
		if diff := cmp.Diff(any(&raft.AppendEntriesResponse{Term: 1, Success: true}), got); diff != "" || err != nil {
			t.Fatal(diff, err)
		}
		if _, err := a.Transport().Inject(t.Context(), &raft.InstallSnapshotRequest{}); err == nil ||
			!strings.Contains(err.Error(), "cannot be injected") {
			t.Fatal("a snapshot without data:", err)
		}
	})
}

func TestInjectedTimeoutNowElects(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, false, nil)
		old := c.leader()
		transferee := c.others(old)[0]
		c.apply(old, 3)
		time.Sleep(time.Second)
		c.crash(old.i)
		start := time.Now()
		req := &raft.TimeoutNowRequest{RPCHeader: header(transferee.i)}
		if _, err := transferee.wire.Inject(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		if c.leader() != transferee || time.Since(start) > 100*time.Millisecond {
			t.Fatalf("no leader after %v", time.Since(start))
		}
	})
}

// closeOutboundRaft closes the connections for raft that a node has made.
func closeOutboundRaft(p *Port) {
	for _, c := range p.conns.All() {
		if c.Protocol() == peerconn.Raft && !c.Inbound() {
			c.Close()
		}
	}
}

func TestGone(t *testing.T) {
	synctest.Parallel(t)
	for _, c := range []struct {
		name string
		do   func(n *simnet.Network, a, b *Port)
		want []string
	}{
		{"crash", func(n *simnet.Network, _, b *Port) { n.Host("b").Crash(); b.Close() }, []string{nodeID(2)}},
		{"end of the process", func(_ *simnet.Network, _, b *Port) { b.Close() }, []string{nodeID(2)}},
		{"partition", func(n *simnet.Network, _, b *Port) { n.Isolate("b") }, nil},
		{"crash behind a partition", func(n *simnet.Network, _, b *Port) { n.Isolate("b"); n.Host("b").Crash(); b.Close() }, nil},
		{"the peer's raft is closed", func(_ *simnet.Network, _, b *Port) { b.Transport().Close() }, nil},
		{"its connections are closed", func(_ *simnet.Network, _, b *Port) { closeOutboundRaft(b) }, nil},
		{"our own raft is closed", func(_ *simnet.Network, a, _ *Port) { a.Transport().Close() }, nil},
		{"our own close, then a crash", func(n *simnet.Network, a, _ *Port) { a.Close(); n.Host("b").Crash() }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New()
				var mu sync.Mutex
				var gone []string
				a := open(t, n, 1, func(c *Config) {
					c.Gone = func(id string) { mu.Lock(); defer mu.Unlock(); gone = append(gone, id) }
				})
				b := open(t, n, 2, nil)
				ack(a)
				ack(b)
				req := &raft.AppendEntriesRequest{RPCHeader: header(2), Term: 1}
				if err := send(b, 1, req); err != nil {
					t.Fatal(err)
				}
				c.do(n, a, b)
				time.Sleep(10 * time.Millisecond)
				mu.Lock()
				quick := slices.Clone(gone)
				mu.Unlock()
				time.Sleep(time.Minute)
				mu.Lock()
				defer mu.Unlock()
				if diff := cmp.Diff([][]string{c.want, c.want}, [][]string{quick, gone}); diff != "" {
					t.Fatal(diff)
				}
				if a.Transport().Refused(nodeID(2)) != (c.want != nil) {
					t.Fatal("Refused does not know")
				}
			})
		})
	}
}

// While a process dies its listener may outlive its other connections. The kernel then resets a new
// connection, even before the dial has returned. Only the port that refuses in the end is a proof.
func TestGoneAfterResets(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		var resets atomic.Int32
		gone := make(chan string, 1)
		a := open(t, n, 1, func(c *Config) {
			c.Gone = func(id string) { gone <- id }
			dial := c.Dial
			c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if resets.Add(-1) >= 0 {
					return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ECONNRESET)}
				}
				return dial(ctx, network, addr)
			}
		})
		b := open(t, n, 2, nil)
		ack(a)
		ack(b)
		if err := send(b, 1, &raft.AppendEntriesRequest{RPCHeader: header(2), Term: 1}); err != nil {
			t.Fatal(err)
		}
		resets.Store(4)
		n.Host("b").Crash()
		b.Close()
		select {
		case id := <-gone:
			if id != nodeID(2) {
				t.Errorf("%s is gone", id)
			}
		case <-time.After(100 * time.Millisecond):
			t.Error("nobody is gone")
		}
	})
}

// TestIdleFlood is the one test on real sockets: ten thousand connections that say nothing.
func TestIdleFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	const count = 10_000
	if err := raiseFiles(count + 1000); err != nil {
		t.Skip("not enough file descriptors: ", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	cfg := Config{ID: nodeID(2), Secrets: []seal.Secret{secret(1)}, Listener: l, Handler: echo()}
	b, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	cfg.ID, cfg.Listener, cfg.Resolve = nodeID(1), l, func(string) (string, bool) { return addr, true }
	a, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil {
		t.Fatal(err)
	}
	before := memory()
	idle := make([]net.Conn, 0, count)
	defer func() {
		for _, c := range idle {
			c.Close()
		}
	}()
	for i := range count {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(i, err)
		}
		idle = append(idle, c)
		if i%2500 == 0 {
			// One over an existing connection, and one over a new one.
			if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil {
				t.Fatal(err)
			}
			if _, _, err := a.CallAddr(t.Context(), addr, "/", nil); err != nil {
				t.Fatal(err)
			}
			a.rpc.CloseIdle()
		}
		if n := b.acceptor.Pending(); n > peerconn.MaxPendingHost {
			t.Fatalf("%d connections wait", n)
		}
	}
	if grown := memory() - before; grown > 32<<20 {
		t.Errorf("%d connections cost %d bytes", count, grown)
	}
}

func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
