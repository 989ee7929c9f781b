package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// serve takes an inbound connection of an authenticated peer.
func (t *Transport) serve(c *conn) {
	if !t.keep(c) {
		c.Close()
		return
	}
	t.port.peers.addRaft(c.peer, 1)
	c.atClose(func() {
		if t.port.peers.addRaft(c.peer, -1) == 0 && !t.ended() {
			t.port.spawn(func() { t.port.probe(c.peer) })
		}
	})
	l := t.inbound(c.peer, c.process)
	if l == nil {
		c.Close()
		return
	}
	select {
	case l.conns <- &inConn{conn: c, patience: 2 * t.port.cfg.Timeout}:
	case <-t.done:
		c.Close()
	}
}

// inbound returns the layer for connections of a process of peer, and makes one for the first; nil after Stop.
func (t *Transport) inbound(peer, process string) *layer {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return nil
	}
	key := peer + process
	l := t.in[key]
	if l == nil {
		l = newLayer(t)
		network := t.network(l)
		t.in[key] = l
		t.wg.Go(func() { t.pump(peer, process, network.Consumer()) })
	}
	return l
}

// pump hands the RPCs of one peer on to raft, or refuses them. raft answers to NetworkTransport itself, which never blocks it.
func (t *Transport) pump(peer, process string, rpcs <-chan raft.RPC) {
	for {
		var rpc raft.RPC
		select {
		case rpc = <-rpcs:
		case <-t.done:
			return
		}
		err := t.check(peer, rpc.Command)
		if err == nil {
			err = t.compare(peer, rpc.Command)
		}
		if err == nil {
			err = t.port.fresh(peer, process)
		}
		if err == nil {
			err = t.mayLead(rpc.Command)
		}
		if err != nil {
			t.refuse(peer, rpc, err)
			continue
		}
		t.heardLeader(peer, process, rpc.Command)
		if req, ok := rpc.Command.(*raft.AppendEntriesRequest); ok && isTold(req) {
			rpc.RespChan = t.afterApplied(req.LeaderCommitIndex, rpc.RespChan)
		}
		select {
		case t.consume <- rpc:
		case <-t.done:
			return
		}
	}
}

// afterApplied returns a channel for raft's answer, which is passed on to the peer when this node has applied index.
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
			if err := t.port.cfg.Applied(index); err != nil {
				r = raft.RPCResponse{Error: errors.New(escape(err.Error()))}
			}
		}
		to <- r // buffered: NetworkTransport waits for it, or has gone
	})
	return from
}

// refuse answers an RPC with an error. The data of a snapshot is read first, or its bytes would be taken for the next RPC.
func (t *Transport) refuse(peer string, rpc raft.RPC, err error) {
	if t.port.said.pass("rpc " + peer) {
		t.port.cfg.Logger.Warn("refused an RPC of raft", "peer", peer, "error", err)
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

// check reports why an RPC of an authenticated peer is not to be believed.
func (t *Transport) check(peer string, cmd any) error {
	var term uint64
	var header raft.RPCHeader
	switch c := cmd.(type) {
	case *raft.AppendEntriesRequest:
		header, term = c.RPCHeader, c.Term
		for i, e := range c.Entries {
			if e == nil || e.Index != c.PrevLogEntry+1+uint64(i) || e.Term > c.Term {
				return errors.New("the entries are not in order")
			}
			switch e.Type {
			case raft.LogCommand, raft.LogNoop, raft.LogBarrier, raft.LogConfiguration:
			default:
				return fmt.Errorf("entries of type %d are not known", e.Type) // raft would panic
			}
		}
	case *raft.RequestVoteRequest:
		header, term = c.RPCHeader, c.Term
	case *raft.RequestPreVoteRequest:
		header, term = c.RPCHeader, c.Term
	case *raft.InstallSnapshotRequest:
		header, term = c.RPCHeader, c.Term
	case *raft.TimeoutNowRequest:
		header = c.RPCHeader
	default:
		return fmt.Errorf("%T is not known", cmd)
	}
	if string(header.ID) != peer || string(header.Addr) != peer {
		return fmt.Errorf("node %s sent an RPC in the name of another", peer)
	}
	if err := t.port.cfg.Admit(peer); err != nil {
		return err
	}
	return t.plausible(peer, term)
}

// probe finds out whether the process of a peer is dead, after all its raft connections to us have ended. A peer may close
// connections that it does not need; only a port that refuses is a proof. A connection is not yet a proof of the contrary:
// while a process dies its listener may outlive its other connections for a moment, and then the new one ends as well.
func (p *Port) probe(id string) {
	for range 3 {
		addr, ok := p.cfg.Resolve(id)
		if !ok {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		raw, err := p.cfg.Dial(ctx, "tcp", addr)
		cancel()
		if p.isClosed() {
			if err == nil {
				raw.Close()
			}
			return
		}
		if err != nil {
			if portRefuses(err) {
				p.peers.failed(id, true)
				p.peers.blame(id, err)
				if p.cfg.Gone != nil {
					p.cfg.Gone(id)
				}
			}
			return
		}
		c, ok := p.track(raw)
		if !ok {
			raw.Close()
			return
		}
		raw.SetReadDeadline(time.Now().Add(dialTimeout / 2))
		_, err = raw.Read(make([]byte, 1))
		c.Close()
		if isTimeout(err) {
			return
		}
	}
}
