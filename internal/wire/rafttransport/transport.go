package rafttransport

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// Transport is the raft.Transport of one run of raft. Its methods may be called from several
// goroutines at once.
type Transport struct {
	cfg      Config
	forget   func(*Transport) // called by Close
	out      *raft.NetworkTransport
	streams  *streams
	holder   *holder
	progress *progress
	consume  chan raft.RPC
	done     chan struct{} // closed by Stop
	wg       sync.WaitGroup

	mu      sync.Mutex
	stopped bool
	in      map[string]inbound // by peer and incarnation
}

// inbound takes the connections of one incarnation of a peer.
type inbound struct {
	layer   *layer
	network *raft.NetworkTransport
}

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

func newTransport(cfg Config, forget func(*Transport)) *Transport {
	t := &Transport{
		cfg:      cfg,
		forget:   forget,
		streams:  newStreams(),
		progress: newProgress(),
		consume:  make(chan raft.RPC),
		done:     make(chan struct{}),
		in:       make(map[string]inbound),
	}
	t.holder = &holder{
		peers: cfg.Peers, admit: cfg.Policy.Admit, term: cfg.Node.Term, done: t.done, released: make(chan struct{}),
	}
	_, t.out = newNetwork(cfg, t.streams)
	return t
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

// Stop mutes the Transport: from now on no request leaves and none enters, and those in progress
// are cut off, answers among them. It does not wait, and may be called from within raft. It is for
// a node whose disk has failed.
func (t *Transport) Stop() {
	t.mu.Lock()
	if t.stopped {
		t.mu.Unlock()
		return
	}
	t.stopped = true
	close(t.done)
	in := make([]inbound, 0, len(t.in))
	for _, i := range t.in {
		in = append(in, i)
	}
	t.mu.Unlock()

	t.streams.closeAll()
	for _, i := range in {
		i.network.Close()
	}
	t.out.Close()
}

// Close ends the Transport and waits for its goroutines; raft calls it after a shutdown. It may be
// called again.
func (t *Transport) Close() error {
	t.Stop()
	t.wg.Wait()
	t.forget(t)
	return nil
}

// Consumer implements raft.Transport.
func (t *Transport) Consumer() <-chan raft.RPC { return t.consume }

// LocalAddr implements raft.Transport: it is the node ID.
func (t *Transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.cfg.ID) }

// EncodePeer implements raft.Transport: a node is its ID.
func (t *Transport) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte { return []byte(id) }

// DecodePeer implements raft.Transport.
func (t *Transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport. It does nothing: heartbeats go the way of all
// other requests.
func (t *Transport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntriesPipeline implements raft.Transport. There is none.
func (t *Transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// Release says that this node no longer leads in the given term. Held calls of it, or of an earlier
// term, end with ErrReleased, and later ones are not held. Call it when raft's LeaderCh says so:
// raft has then stopped replication, and does not start it again.
func (t *Transport) Release(term uint64) { t.holder.release(term) }

// Contact returns when a peer last answered an AppendEntries or a call of ours; zero if it never
// did.
func (t *Transport) Contact(id string) time.Time { return t.cfg.Peers.Contact(id) }

// Refused reports whether the port of a peer refused the last dial, so that its process is not
// there, and the peer has not been seen since.
func (t *Transport) Refused(id string) bool { return t.cfg.Peers.Refused(id) }

// Match returns index and term of the last entry that a peer has confirmed to have to this node as
// leader of that term; 0, 0 if there is none.
func (t *Transport) Match(id string, leader uint64) (index, term uint64) {
	m := t.progress.match(id, leader)
	return m.index, m.term
}

// Confirmed is the index of Match, if that incarnation of the peer has confirmed it. It is 0 if a
// later incarnation may have done so.
func (t *Transport) Confirmed(id, incarnation string, leader uint64) uint64 {
	if m := t.progress.match(id, leader); m.incarnation == incarnation {
		return m.index
	}
	return 0
}

// Committed returns how far that incarnation of a peer has said, as leader, that the log is
// committed; 0 if it has not.
func (t *Transport) Committed(id, incarnation string) uint64 {
	return t.progress.committed(id, incarnation)
}

// LedBy returns the incarnation of a peer that led last, as far as this node knows; empty: none.
func (t *Transport) LedBy(id string) (incarnation string) { return t.progress.ledBy(id) }

// Inject hands a request to the local raft as if a peer had sent it, and returns raft's answer: a
// pointer to the request and a pointer to the response, of package raft. The request is not checked
// further. InstallSnapshot cannot be injected.
func (t *Transport) Inject(ctx context.Context, cmd any) (any, error) {
	switch cmd.(type) {
	case *raft.AppendEntriesRequest, *raft.RequestVoteRequest, *raft.RequestPreVoteRequest, *raft.TimeoutNowRequest:
	default:
		return nil, fmt.Errorf("%T cannot be injected", cmd)
	}
	if t.ended() {
		return nil, peerconn.ErrClosed
	}
	if req, ok := cmd.(*raft.TimeoutNowRequest); ok {
		t.endCandidacy(req.RPCHeader, ctx.Done())
	}
	answer := make(chan raft.RPCResponse, 1)
	select {
	case t.consume <- raft.RPC{Command: cmd, RespChan: answer}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-t.done:
		return nil, peerconn.ErrClosed
	}
	select {
	case r := <-answer:
		return r.Response, r.Error
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-t.done:
		return nil, peerconn.ErrClosed
	}
}
