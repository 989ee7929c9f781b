package rafttransport

import (
	"errors"
	"io"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// serve takes an inbound connection of an authenticated peer.
func (t *Transport) serve(c *peerconn.Conn) {
	if !t.streams.keep(c) {
		c.Close()
		return
	}
	peer := c.Peer()
	t.streams.addInbound(peer.ID, 1)
	c.AtClose(func() {
		if t.streams.addInbound(peer.ID, -1) == 0 && !t.ended() {
			t.cfg.Life.Go(func() { t.probe(peer.ID) })
		}
	})
	t.renew(peer.ID, peer.Incarnation)
	l := t.inbound(peer.ID, peer.Incarnation)
	if l == nil {
		c.Close()
		return
	}
	select {
	case l.conns <- &inConn{Conn: c, timeout: 2 * t.cfg.Timeout}:
	case <-t.done:
		c.Close()
	}
}

// probe finds out whether the process of a peer is dead.
func (t *Transport) probe(id string) {
	t.cfg.Logger.Debug("a peer's connections have ended", "peer", id)
	if t.cfg.Dialer.Probe(id) {
		t.cfg.Node.Gone(id)
	}
}

// inbound returns the layer for the connections of one incarnation of a peer, and makes one for the
// first; nil after Stop.
func (t *Transport) inbound(peer, incarnation string) *layer {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return nil
	}
	key := peer + incarnation
	in, ok := t.in[key]
	if !ok {
		in.layer, in.network = newNetwork(t.cfg, t.streams)
		t.in[key] = in
		t.wg.Go(func() { t.pump(peer, incarnation, in.network.Consumer()) })
	}
	return in.layer
}

// pump hands the requests of one peer on to raft, or refuses them. raft answers to NetworkTransport
// itself, which never blocks it.
func (t *Transport) pump(peer, incarnation string, rpcs <-chan raft.RPC) {
	for {
		var rpc raft.RPC
		select {
		case rpc = <-rpcs:
		case <-t.done:
			return
		}
		reason := peerconn.BadProtocol
		term, err := validate(peer, rpc.Command)
		if err == nil {
			reason = peerconn.BadMember
			err = t.cfg.Policy.Admit(peer)
		}
		if err == nil {
			reason = peerconn.BadTerm
			err = plausible(t.cfg.Node, peer, term)
		}
		if err == nil {
			reason = peerconn.BadLog
			err = compare(t.cfg.History, peer, rpc.Command)
		}
		if err == nil {
			reason = peerconn.BadProcess
			err = t.cfg.Policy.Fresh(peer, incarnation)
		}
		if err == nil {
			reason = peerconn.BadElection
			err = mayLead(t.cfg.Policy, rpc.Command)
		}
		if err == nil {
			err = leads(t.cfg.Node, peer, rpc.Command)
		}
		if err != nil {
			t.refuse(peer, rpc, reason, err)
			continue
		}
		if req, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
			t.progress.leads(peer, incarnation, req.LeaderCommitIndex)
			//lint:ignore SA1019 see annotation
			if decodeAnnotation(req.Leader).notify {
				rpc.RespChan = t.afterApplied(req.LeaderCommitIndex, rpc.RespChan)
			}
		}
		if req, ok := rpc.Command.(*raft.TimeoutNowRequest); ok {
			t.endCandidacy(req.RPCHeader, t.done)
		}
		select {
		case t.consume <- rpc:
		case <-t.done:
			return
		}
	}
}

// endCandidacy makes raft a follower before a TimeoutNow, if it is a candidate that knows a leader.
// raft stays one after an election that a TimeoutNow began and another node won, and then ignores
// TimeoutNow for up to two election timeouts. A request for its vote in the next term ends that. It
// gets none: the request names no entry of a log.
func (t *Transport) endCandidacy(header raft.RPCHeader, end <-chan struct{}) {
	leader, candidate := t.cfg.Node.Standing()
	term, ok := t.cfg.Node.Term()
	if leader == "" || !candidate || !ok {
		return
	}
	next := raft.RPC{
		Command:  &raft.RequestVoteRequest{RPCHeader: header, Term: term + 1, LeadershipTransfer: true},
		RespChan: make(chan raft.RPCResponse, 1), // nobody waits for the answer
	}
	select {
	case t.consume <- next:
	case <-end:
	case <-t.done:
	}
}

// afterApplied returns a channel for raft's answer. The peer gets it when this node has applied
// index.
func (t *Transport) afterApplied(index uint64, to chan<- raft.RPCResponse) chan<- raft.RPCResponse {
	from := make(chan raft.RPCResponse, 1)
	t.wg.Go(func() {
		var r raft.RPCResponse
		select {
		case r = <-from:
		case <-t.done:
			return
		}
		if resp, ok := r.Response.(*raft.AppendEntriesResponse); ok && r.Error == nil && resp.Success {
			if err := t.cfg.Node.Applied(index); err != nil {
				r = raft.RPCResponse{Error: errors.New(escape(err.Error()))}
			}
		}
		to <- r // buffered: NetworkTransport waits for it, or has gone
	})
	return from
}

// refuse answers a request with an error. It reads the data of a snapshot first, because its bytes
// would otherwise be taken for the next request.
func (t *Transport) refuse(peer string, rpc raft.RPC, reason string, err error) {
	t.cfg.Rejected.Inc(reason)
	if t.cfg.Throttle.Pass("rpc " + peer) {
		t.cfg.Logger.Warn("refused an RPC of raft", "peer", peer, "error", err)
	}
	err = errors.New(escape(err.Error()))
	if rpc.Reader == nil {
		rpc.Respond(nil, err)
		return
	}
	t.wg.Go(func() {
		io.Copy(io.Discard, rpc.Reader)
		rpc.Respond(nil, err)
	})
}

// escape keeps NetworkTransport from reading verbs into a text: it makes an error of the peer's
// answer with fmt.Errorf.
func escape(text string) string { return strings.ReplaceAll(text, "%", "%%") }
