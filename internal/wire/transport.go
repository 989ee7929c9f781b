package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	maxPool   = 3       // connections kept to a peer: heartbeats, replication, votes
	maxAppend = 2 << 20 // bytes of entries in one request, beyond which no other one is added
	termJump  = 1 << 20 // how far the term of another may be ahead of ours
)

// Transport is the raft.Transport of a Port. Inside it is raft.NetworkTransport: one for everything that leaves, and one for
// each peer that connects, so that what arrives is known to come from that peer. Around it stand remedies for faults of raft
// v1.7.3:
//
//   - There is no heartbeat handler. It would run on the transport's goroutine beside raft's main loop and make committed logs
//     diverge after a leader has stood still (https://github.com/hashicorp/raft/issues/695).
//   - There is no pipeline: it can deadlock for ever (https://github.com/hashicorp/raft/issues/612).
//   - AppendEntries are not sent while the own disk hangs, so that a leader which can write nothing is replaced
//     (https://github.com/hashicorp/raft/issues/503).
//   - What arrives is refused unless it names the node that the certificate proves, that node is admitted, and its term is
//     plausible: AppendEntries with a term near 2^64 would make elections impossible for good.
//   - Replication to a peer that is down is held instead of failed. raft would wait up to 10 s between attempts, and cannot be
//     woken when the peer returns.
//   - Connections that a peer abandons in the middle of a request are closed; raft's main loop reads snapshots from them.
//
// Call Release or Close before waiting for raft to shut down: held calls keep its goroutines.
type Transport struct {
	port    *Port
	out     *raft.NetworkTransport
	consume chan raft.RPC
	done    chan struct{} // closed by Stop
	wg      sync.WaitGroup

	mu       sync.Mutex
	stopped  bool
	released chan struct{} // closed and replaced by Release
	over     uint64        // the highest term that Release was called for
	match    map[string]match
	commits  map[string]commit // what leaders have told, by peer
	led      map[string]string // the process of a peer that replicated to us last
	in       map[string]*layer // by peer and process
	conns    map[*conn]struct{}
}

// match is what a peer has confirmed to have in its log.
type match struct {
	index, term, leader uint64
	process             string // which has confirmed it, or one before
}

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

func newTransport(p *Port) *Transport {
	t := &Transport{
		port:     p,
		consume:  make(chan raft.RPC),
		done:     make(chan struct{}),
		released: make(chan struct{}),
		match:    make(map[string]match),
		commits:  make(map[string]commit),
		led:      make(map[string]string),
		in:       make(map[string]*layer),
		conns:    make(map[*conn]struct{}),
	}
	t.out = t.network(newLayer(t))
	return t
}

// network makes a raft.NetworkTransport. It logs nothing: what fails is returned to raft, which logs it.
func (t *Transport) network(l *layer) *raft.NetworkTransport {
	l.network = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Logger:          hclog.NewNullLogger(),
		Stream:          l,
		MaxPool:         maxPool,
		MaxRPCsInFlight: 1,
		Timeout:         t.port.cfg.Timeout,
	})
	return l.network
}

// layer is a raft.StreamLayer: it accepts what is put into conns, and dials through the Port.
type layer struct {
	t       *Transport
	network *raft.NetworkTransport // on top of it; set before the layer is shared
	conns   chan net.Conn
	done    chan struct{}
	once    sync.Once
}

func newLayer(t *Transport) *layer {
	return &layer{t: t, conns: make(chan net.Conn), done: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, ErrClosed
	}
}

// Close implements net.Listener.
func (l *layer) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *layer) Addr() net.Addr { return nodeAddr(l.t.port.cfg.ID) }

// Dial implements raft.StreamLayer.
func (l *layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	id := string(address)
	nc, err := l.t.port.whileOpen(ctx, func(ctx context.Context) (*conn, error) { return l.t.port.dialNode(ctx, id, alpnRaft) })
	if err != nil {
		return nil, err
	}
	c := nc.(*conn)
	if !l.t.keep(c) {
		c.Close()
		return nil, ErrClosed
	}
	return &outConn{conn: c, broke: func() { l.t.port.peers.broke(id) }}, nil
}

// nodeAddr is a net.Addr that is a node ID.
type nodeAddr string

func (a nodeAddr) Network() string { return "flotilla" }
func (a nodeAddr) String() string  { return string(a) }

// keep has Stop close c, unless it was called already.
func (t *Transport) keep(c *conn) bool {
	t.mu.Lock()
	if t.stopped {
		t.mu.Unlock()
		return false
	}
	t.conns[c] = struct{}{}
	t.mu.Unlock()
	c.atClose(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.conns, c)
	})
	return true
}

// ended reports whether Stop or Close was called.
func (t *Transport) ended() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// Stop mutes the Transport: from now on no RPC leaves and none enters, and RPCs under way are cut off, answers among them. It
// does not wait, and may be called from within raft. It is for a node whose disk has failed.
func (t *Transport) Stop() {
	t.mu.Lock()
	if t.stopped {
		t.mu.Unlock()
		return
	}
	t.stopped = true
	close(t.done)
	layers := make([]*layer, 0, len(t.in))
	for _, l := range t.in {
		layers = append(layers, l)
	}
	conns := make([]*conn, 0, len(t.conns))
	for c := range t.conns {
		conns = append(conns, c)
	}
	t.mu.Unlock()

	for _, c := range conns {
		c.Close()
	}
	for _, l := range layers {
		l.network.Close()
	}
	t.out.Close()
}

// Close ends the Transport and waits for its goroutines; raft calls it after a shutdown. It may be called again.
func (t *Transport) Close() error {
	t.Stop()
	t.wg.Wait()
	t.port.forget(t)
	return nil
}

// Consumer implements raft.Transport.
func (t *Transport) Consumer() <-chan raft.RPC { return t.consume }

// LocalAddr implements raft.Transport: it is the node ID.
func (t *Transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.port.cfg.ID) }

// EncodePeer implements raft.Transport: a node is its ID.
func (t *Transport) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte { return []byte(id) }

// DecodePeer implements raft.Transport.
func (t *Transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport. It does nothing: heartbeats take the way of all other RPCs.
func (t *Transport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntriesPipeline implements raft.Transport. There is none.
func (t *Transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport. A bare heartbeat is sent in any case, beside a note if there is one soon. What replicates is held while the peer is
// down, until the peer is heard of, is admitted no more, has a newer term, or Release, Stop or Close is called.
func (t *Transport) AppendEntries(id raft.ServerID, _ raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	peer := string(id)
	cut(req)
	beat := req.PrevLogEntry == 0 && req.PrevLogTerm == 0 && len(req.Entries) == 0 && req.LeaderCommitIndex == 0
	if beat && t.port.cfg.Company > 0 {
		t.port.notes.outbox(peer).company(t.port.cfg.Company)
	}
	for round, broken := 0, 0; ; {
		if !beat {
			if err := t.hold(peer, req.Term, round); err != nil {
				return err
			}
		}
		if err := t.maySend(); err != nil {
			return err
		}
		before := t.port.peers.broken(peer)
		*resp = raft.AppendEntriesResponse{}
		sent := *req
		sent.Leader = t.aside(false, req.PrevLogEntry, req.PrevLogTerm) //lint:ignore SA1019 see aside
		err := t.out.AppendEntries(id, raft.ServerAddress(id), &sent, resp)
		var unreached *dialError
		switch {
		case err == nil:
			if err := t.plausible(peer, resp.Term); err != nil {
				return err
			}
			t.port.peers.answered(peer)
			if resp.Success && !beat {
				t.matched(peer, req)
			}
			return nil
		case beat:
			return err
		case isDiffers(err):
			t.port.complainDiffers(peer, err)
			return err
		case errors.As(err, &unreached):
			round++
		case t.port.peers.broken(peer) != before && broken <= maxPool:
			// After a peer has restarted, each pooled connection to it fails once. AppendEntries may be repeated.
			broken++
		default:
			return err
		}
	}
}

// cut shortens a request to what a slow line and a slow disk deal with in time; raft goes on from what was sent.
func cut(req *raft.AppendEntriesRequest) {
	size := 0
	for i, e := range req.Entries {
		if e == nil {
			return // the peer refuses it
		}
		if size += len(e.Data); i > 0 && size > maxAppend {
			req.Entries = req.Entries[:i]
			return
		}
	}
}

// InstallSnapshot implements raft.Transport. It is held while the peer is down, as AppendEntries.
func (t *Transport) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	peer := string(id)
	for round := 0; ; round++ {
		if err := t.hold(peer, req.Term, round); err != nil {
			return err
		}
		if err := t.maySend(); err != nil {
			return err
		}
		sent := *req
		sent.Leader = t.aside(false, req.LastLogIndex, req.LastLogTerm)
		err := t.out.InstallSnapshot(id, raft.ServerAddress(id), &sent, resp, data)
		if isDiffers(err) {
			t.port.complainDiffers(peer, err)
		}
		if unreached := new(dialError); errors.As(err, &unreached) {
			continue // nothing of data was read
		}
		return t.settle(peer, resp.Term, err)
	}
}

// RequestVote implements raft.Transport.
func (t *Transport) RequestVote(id raft.ServerID, _ raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if t.ended() {
		return ErrClosed
	}
	err := t.again(string(id), func() error { return t.out.RequestVote(id, raft.ServerAddress(id), req, resp) })
	return t.settle(string(id), resp.Term, err)
}

// RequestPreVote implements raft.WithPreVote.
func (t *Transport) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if t.ended() {
		return ErrClosed
	}
	err := t.again(string(id), func() error { return t.out.RequestPreVote(id, raft.ServerAddress(id), req, resp) })
	return t.settle(string(id), resp.Term, err)
}

// again repeats a request for a vote as long as pooled connections break: after a peer has restarted, each of them does so once. raft itself would not ask
// again before the next election, a second later. A vote may be asked for twice; the peer gives the same answer.
func (t *Transport) again(peer string, ask func() error) error {
	for broken := 0; ; broken++ {
		before := t.port.peers.broken(peer)
		err := ask()
		if unreached := new(dialError); err == nil || errors.As(err, &unreached) || t.port.peers.broken(peer) == before || broken > maxPool || t.ended() {
			return err
		}
	}
}

// TimeoutNow implements raft.Transport.
func (t *Transport) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	if t.ended() {
		return ErrClosed
	}
	err := t.out.TimeoutNow(id, raft.ServerAddress(id), req, resp)
	return t.settle(string(id), 0, err)
}

// settle judges the answer to an RPC.
func (t *Transport) settle(peer string, term uint64, err error) error {
	if err != nil {
		return err
	}
	if err := t.plausible(peer, term); err != nil {
		return err
	}
	t.port.peers.heard(peer)
	return nil
}

// maySend reports why no AppendEntries may be sent now.
func (t *Transport) maySend() error {
	if t.ended() {
		return ErrClosed
	}
	if t.port.cfg.Stalled() {
		return ErrStalled
	}
	return nil
}

// plausible refuses a term that no series of elections has led to.
func (t *Transport) plausible(peer string, term uint64) error {
	if t.port.cfg.Term == nil {
		return nil
	}
	if own := t.port.cfg.Term(); term > own && term-own > termJump {
		return fmt.Errorf("the term %d of node %s is not plausible, ours is %d", term, peer, own)
	}
	return nil
}

// release returns the highest term that Release was called for, and the channel that the next Release closes.
func (t *Transport) release() (over uint64, released <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over, t.released
}

// hold waits while peer is down. round counts the dials that failed since the call began.
func (t *Transport) hold(peer string, term uint64, round int) error {
	if round > 1 {
		// A peer that reaches us but cannot be reached is heard of again and again.
		pause := make(chan struct{})
		timer := time.AfterFunc(min(time.Duration(round)*50*time.Millisecond, 500*time.Millisecond), func() { close(pause) })
		defer timer.Stop()
		if err := t.await(pause, peer, term); err != nil {
			return err
		}
	}
	if up := t.port.peers.up(peer); up != nil {
		return t.await(up, peer, term)
	}
	return nil
}

// await waits for c, or for a reason to hold no longer.
func (t *Transport) await(c <-chan struct{}, peer string, term uint64) error {
	check := time.NewTicker(time.Second)
	defer check.Stop()
	for {
		over, released := t.release()
		if term <= over {
			return ErrReleased
		}
		select {
		case <-c:
			return nil
		case <-released:
		case <-t.done:
			return ErrClosed
		case <-check.C:
			if err := t.port.cfg.Admit(peer); err != nil {
				return fmt.Errorf("%w: %w", ErrReleased, err)
			}
			if t.port.cfg.Term != nil && t.port.cfg.Term() > term {
				return ErrReleased
			}
		}
	}
}

// matched notes that peer has confirmed what req ends with.
func (t *Transport) matched(peer string, req *raft.AppendEntriesRequest) {
	now := match{req.PrevLogEntry, req.PrevLogTerm, req.Term, t.port.peers.processOf(peer)}
	if n := len(req.Entries); n > 0 {
		now.index, now.term = req.Entries[n-1].Index, req.Entries[n-1].Term
	}
	t.mu.Lock()
	old := t.match[peer]
	grew := now.leader > old.leader || now.leader == old.leader && now.index > old.index
	if grew {
		t.match[peer] = now
	}
	t.mu.Unlock()
	if grew && t.port.cfg.Matched != nil {
		t.port.cfg.Matched(peer)
	}
}

// Tell sends a peer an AppendEntries without entries, which tells it how far the log is committed, and reports whether it has
// applied that (see Config.Applied). raft itself would tell with its next entry, or after a while. req is of this node's present
// term as leader, its PrevLogEntry a Match of the peer, its LeaderCommitIndex no higher than that.
func (t *Transport) Tell(id string, req raft.AppendEntriesRequest) bool {
	if t.maySend() != nil {
		return false
	}
	req.Leader = t.aside(true, req.PrevLogEntry, req.PrevLogTerm) //lint:ignore SA1019 see aside
	var resp raft.AppendEntriesResponse
	err := t.out.AppendEntries(raft.ServerID(id), raft.ServerAddress(id), &req, &resp)
	if isDiffers(err) {
		t.port.complainDiffers(id, err)
	}
	if err != nil || t.plausible(id, resp.Term) != nil {
		return false
	}
	t.port.peers.answered(id)
	return resp.Success
}

// Contact returns when a peer last answered an AppendEntries or a call of ours; zero if it never did.
func (t *Transport) Contact(id string) time.Time {
	contact, _ := t.port.peers.view(id)
	return contact
}

// Match returns index and term of the last entry that a peer has confirmed to hold to this node as leader of that term; 0, 0 if
// there is none.
func (t *Transport) Match(id string, leader uint64) (index, term uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.match[id]
	if m.leader != leader {
		return 0, 0
	}
	return m.index, m.term
}

// Confirmed returns the index of the last entry that a process of a peer has confirmed to hold to this
// node as leader of that term; 0 if there is none, or if a later process may have confirmed it.
func (t *Transport) Confirmed(id, process string, leader uint64) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.match[id]; m.leader == leader && m.process == process {
		return m.index
	}
	return 0
}

// Refused reports whether the last dial to a peer was refused by its port, so that its process is not there, and it has not
// been heard of since.
func (t *Transport) Refused(id string) bool {
	_, refused := t.port.peers.view(id)
	return refused
}

// Release says that this node leads no more in the given term: calls of it, or of an earlier one, that are held end with ErrReleased,
// and later ones are not held. It should be called when raft's LeaderCh tells, for then replication was told to stop and does not
// come again.
func (t *Transport) Release(term uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = max(t.over, term)
	close(t.released)
	t.released = make(chan struct{})
}

// Inject hands a request to the local raft as if a peer had sent it, and returns raft's answer: a pointer to the request and a
// pointer to the response, of package raft. The request is checked no further. InstallSnapshot cannot be injected.
func (t *Transport) Inject(ctx context.Context, cmd any) (any, error) {
	switch cmd.(type) {
	case *raft.AppendEntriesRequest, *raft.RequestVoteRequest, *raft.RequestPreVoteRequest, *raft.TimeoutNowRequest:
	default:
		return nil, fmt.Errorf("%T cannot be injected", cmd)
	}
	if t.ended() {
		return nil, ErrClosed
	}
	answer := make(chan raft.RPCResponse, 1)
	select {
	case t.consume <- raft.RPC{Command: cmd, RespChan: answer}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-t.done:
		return nil, ErrClosed
	}
	select {
	case r := <-answer:
		return r.Response, r.Error
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-t.done:
		return nil, ErrClosed
	}
}

// escape keeps NetworkTransport from reading verbs into a text: it makes an error of what a peer answers with fmt.Errorf.
func escape(text string) string { return strings.ReplaceAll(text, "%", "%%") }
