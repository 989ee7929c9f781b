package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/wire/rafttransport"
)

// cluster is three nodes of raft over simnet. Each has a Port or, for comparison, a bare
// raft.NetworkTransport.
type cluster struct {
	t     *testing.T
	net   *simnet.Network
	bare  bool
	tune  func(i int, c *raft.Config)
	late  atomic.Bool // replication does not reach node 1, heartbeats do
	nodes []*node     // node i is nodes[i-1]
}

type node struct {
	i     int
	raft  *raft.Raft
	run   atomic.Pointer[raft.Raft] // the same, for callbacks
	trans raft.Transport
	wire  *Transport // nil if bare
	port  *Port      // nil if bare
	net   *bareNet   // nil unless bare
	disk  *disk
	snaps raft.SnapshotStore
	fsm   *fsm
}

// disk is a store in memory that can hang and fail.
type disk struct {
	*raft.InmemStore
	mu    sync.Mutex
	hang  chan struct{} // not nil: writes wait until it is closed
	since time.Time     // when the current write began
	fails int           // this many of the next writes fail
}

func (d *disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

func (d *disk) StoreLogs(logs []*raft.Log) error {
	d.mu.Lock()
	hang := d.hang
	d.since = time.Now()
	failed := d.fails > 0
	if failed {
		d.fails--
	}
	d.mu.Unlock()
	if hang != nil {
		<-hang
	}
	d.mu.Lock()
	d.since = time.Time{}
	d.mu.Unlock()
	if failed {
		return errors.New("input/output error")
	}
	return d.InmemStore.StoreLogs(logs)
}

func (d *disk) stalled() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.since.IsZero() && time.Since(d.since) > time.Second
}

func (d *disk) setHang(hang chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hang = hang
}

func (d *disk) failNext(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails = n
}

// fsm counts.
type fsm struct {
	mu sync.Mutex
	n  int
}

func (f *fsm) Apply(*raft.Log) any                 { f.mu.Lock(); defer f.mu.Unlock(); f.n++; return f.n }
func (f *fsm) Restore(r io.ReadCloser) error       { return r.Close() }
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return f, nil }
func (f *fsm) Persist(s raft.SnapshotSink) error   { return s.Close() }
func (f *fsm) Release()                            {}

// bareNet is a raft.StreamLayer on simnet without anything of ours. It keeps what must be closed
// for a test to end.
type bareNet struct {
	net.Listener
	*raft.NetworkTransport
	host  *simnet.Host
	mu    sync.Mutex
	conns []io.Closer
}

func (b *bareNet) keep(c io.Closer) { b.mu.Lock(); defer b.mu.Unlock(); b.conns = append(b.conns, c) }

func (b *bareNet) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if err == nil {
		b.keep(c)
	}
	return c, err
}

func (b *bareNet) Dial(addr raft.ServerAddress, d time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	c, err := b.host.Dial(ctx, "tcp", string(addr))
	if err == nil {
		b.keep(c)
	}
	return c, err
}

// Close implements both net.Listener and raft.WithClose.
func (b *bareNet) Close() error {
	b.Listener.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Close()
	}
	return nil
}

// bareTransport is raft.NetworkTransport. It keeps its pipelines, so that a test can end those that
// have locked up.
type bareTransport struct {
	*raft.NetworkTransport
	net *bareNet
}

func (b *bareTransport) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := b.NetworkTransport.AppendEntriesPipeline(id, addr)
	if err == nil {
		b.net.keep(p)
	}
	return p, err
}

// slow is a transport whose replication a test can hold up.
type slow struct {
	raft.Transport
	c *cluster
}

func (s *slow) RequestPreVote(
	id raft.ServerID,
	addr raft.ServerAddress,
	req *raft.RequestPreVoteRequest,
	resp *raft.RequestPreVoteResponse,
) error {
	return s.Transport.(raft.WithPreVote).RequestPreVote(id, addr, req, resp)
}

func (s *slow) AppendEntries(
	id raft.ServerID,
	addr raft.ServerAddress,
	req *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse,
) error {
	if s.c.late.Load() && string(id) == nodeID(1) && req.LeaderCommitIndex > 0 {
		return errors.New("later")
	}
	return s.Transport.AppendEntries(id, addr, req, resp)
}

// newBare makes a bare transport on a host.
func newBare(t *testing.T, n *simnet.Network, host string) *bareTransport {
	t.Helper()
	h := n.Host(host)
	l, err := h.Listen("tcp", ":7373")
	if err != nil {
		t.Fatal(err)
	}
	b := &bareNet{Listener: l, host: h}
	return &bareTransport{net: b, NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: b, MaxPool: rafttransport.MaxPool, Timeout: rpcTimeout, Logger: hclog.NewNullLogger(),
	})}
}

// newCluster starts three nodes and waits for a leader. All ends with the test.
func newCluster(t *testing.T, bare bool, tune func(i int, c *raft.Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, net: simnet.New(), bare: bare, tune: tune}
	var servers raft.Configuration
	for i := 1; i <= 3; i++ {
		c.nodes = append(
			c.nodes,
			&node{i: i, disk: &disk{InmemStore: raft.NewInmemStore()}, snaps: raft.NewInmemSnapshotStore()},
		)
		servers.Servers = append(servers.Servers, raft.Server{ID: raft.ServerID(nodeID(i)), Address: c.address(i)})
	}
	t.Cleanup(c.stop)
	for i := 1; i <= 3; i++ {
		c.start(i)
	}
	for _, n := range c.nodes {
		if err := n.raft.BootstrapCluster(servers).Error(); err != nil {
			t.Fatal(err)
		}
	}
	c.leader()
	return c
}

func (c *cluster) address(i int) raft.ServerAddress {
	if c.bare {
		return raft.ServerAddress(nodeAt(i))
	}
	return raft.ServerAddress(nodeID(i))
}

func (c *cluster) start(i int) {
	c.t.Helper()
	n := c.nodes[i-1]
	n.fsm = new(fsm)
	if c.bare {
		b := newBare(c.t, c.net, hostName(i))
		n.trans, n.net = b, b.net
	} else {
		n.port = open(c.t, c.net, i, func(cfg *Config) {
			cfg.Stalled = n.disk.stalled
			cfg.Term = func() uint64 { return n.term() }
		})
	}
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(nodeID(i))
	cfg.Logger = hclog.NewNullLogger()
	cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = 750*time.Millisecond, 750*time.Millisecond, 375*time.Millisecond
	if c.tune != nil {
		c.tune(i, cfg)
	}
	if !c.bare {
		n.wire = n.port.Transport()
		n.trans = n.wire
	}
	r, err := raft.NewRaft(cfg, n.fsm, n.disk, n.disk, n.snaps, &slow{n.trans, c})
	if err != nil {
		c.t.Fatal(err)
	}
	n.raft = r
	n.run.Store(r)
}

func (n *node) term() uint64 {
	if r := n.run.Load(); r != nil {
		return r.CurrentTerm()
	}
	return 0
}

// crash ends the process of node i, as far as the others can see, and keeps its disk.
func (c *cluster) crash(i int) {
	n := c.nodes[i-1]
	c.net.Host(hostName(i)).Crash()
	n.end()
	n.raft = nil
}

func (n *node) end() {
	if n.raft == nil {
		return
	}
	n.disk.mu.Lock()
	if n.disk.hang != nil {
		close(n.disk.hang)
		n.disk.hang = nil
	}
	n.disk.mu.Unlock()
	if n.port != nil {
		n.port.Close()
	}
	down := n.raft.Shutdown()
	if n.net != nil {
		// closes the listener and, by bareNet.Close, all else
		n.trans.(*bareTransport).NetworkTransport.Close()
	}
	down.Error()
}

func (c *cluster) stop() {
	for _, n := range c.nodes {
		n.end()
	}
}

// leads returns the node that leads, of those given or of all; nil if none does.
func (c *cluster) leads(among ...*node) *node {
	if len(among) == 0 {
		among = c.nodes
	}
	for _, n := range among {
		if n.raft != nil && n.raft.State() == raft.Leader {
			return n
		}
	}
	return nil
}

// leader waits for a leader, among those given or all.
func (c *cluster) leader(among ...*node) *node {
	c.t.Helper()
	var n *node
	if d := c.wait(30*time.Second, func() bool { n = c.leads(among...); return n != nil }); n == nil {
		c.t.Fatalf("no leader after %v", d)
	}
	return n
}

// wait waits until ok, in steps of a millisecond, and returns how long that took.
func (c *cluster) wait(atMost time.Duration, ok func() bool) time.Duration {
	start := time.Now()
	for !ok() && time.Since(start) < atMost {
		time.Sleep(time.Millisecond)
	}
	return time.Since(start)
}

// others returns all nodes but those given.
func (c *cluster) others(not ...*node) (rest []*node) {
	for _, n := range c.nodes {
		if !slices.Contains(not, n) {
			rest = append(rest, n)
		}
	}
	return rest
}

// apply makes the leader n commit count entries.
func (c *cluster) apply(n *node, count int) {
	c.t.Helper()
	for k := range count {
		if err := n.raft.Apply(fmt.Appendf(nil, "%d", k), 0).Error(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// differ returns the first index at which two nodes hold different committed entries, or 0.
func differ(t *testing.T, a, b *node) uint64 {
	t.Helper()
	for i := uint64(1); i <= min(a.raft.CommitIndex(), b.raft.CommitIndex()); i++ {
		var x, y raft.Log
		if err := errors.Join(a.disk.GetLog(i, &x), b.disk.GetLog(i, &y)); err != nil {
			t.Fatal(err)
		}
		if x.Term != y.Term || x.Type != y.Type || string(x.Data) != string(y.Data) {
			return i
		}
	}
	return 0
}
