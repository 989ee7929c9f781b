package rafttransport

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/timing"
	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// maxAppend is the size in bytes of the entries of one request beyond which no other one is added.
const maxAppend = 2 << 20

// AppendEntries implements raft.Transport. A bare heartbeat is always sent. A request that
// replicates is held while the peer is down. It is no longer held when the peer is seen, is no
// longer admitted or has a newer term, or when Release, Stop or Close is called.
func (t *Transport) AppendEntries(
	id raft.ServerID,
	_ raft.ServerAddress,
	req *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse,
) error {
	peer := string(id)
	cut(req)
	beat := req.PrevLogEntry == 0 && req.PrevLogTerm == 0 && len(req.Entries) == 0 && req.LeaderCommitIndex == 0
	for round, broken := 0, 0; ; {
		if !beat {
			if err := t.holder.hold(peer, req.Term, round); err != nil {
				return err
			}
		}
		if err := t.maySend(); err != nil {
			return err
		}
		before := t.streams.broken(peer)
		*resp = raft.AppendEntriesResponse{}
		sent := *req
		//lint:ignore SA1019 see annotation
		sent.Leader = t.annotate(false, req.PrevLogEntry, req.PrevLogTerm)
		err := t.out.AppendEntries(id, raft.ServerAddress(id), &sent, resp)
		switch {
		case err == nil:
			if err := plausible(t.cfg.Node, peer, resp.Term); err != nil {
				return err
			}
			t.cfg.Peers.Answered(peer)
			if resp.Success && !beat {
				if err := t.awaitDurable(peer, req); err != nil {
					return err
				}
			}
			if resp.Success && !beat && t.progress.confirmed(peer, t.streams.incarnation(peer), req) {
				t.cfg.Node.Matched(peer)
			}
			return nil
		case beat:
			return err
		case isContradiction(err):
			t.complain(peer, err)
			return err
		case isUnreached(err):
			round++
		case t.streams.broken(peer) != before && broken <= MaxPool:
			// After a peer has restarted, each pooled connection to it fails once. AppendEntries
			// may be repeated.
			broken++
		default:
			return err
		}
	}
}

// awaitDurable waits until this node has on its disk what a peer has confirmed. raft counts the
// peer's success when AppendEntries returns, and has counted the leader itself before.
func (t *Transport) awaitDurable(peer string, req *raft.AppendEntriesRequest) error {
	last := req.PrevLogEntry + uint64(len(req.Entries))
	for {
		changed, err := t.cfg.Node.Durable(last)
		if err != nil || changed == nil {
			return err
		}
		if err := t.holder.await(changed, peer, req.Term); err != nil {
			return err
		}
	}
}

// awaitVote waits until this node's own vote in a term is on its disk. It must not ask for votes
// before: it may forget the term in a crash, and the votes of others are remembered.
func (t *Transport) awaitVote(term uint64) error {
	patience := time.NewTimer(t.cfg.Timeout)
	defer patience.Stop()
	for {
		changed, err := t.cfg.Node.Voted(term)
		if err != nil || changed == nil {
			return err
		}
		select {
		case <-changed:
		case <-t.done:
			return peerconn.ErrClosed
		case <-patience.C:
			return fmt.Errorf("this node's own vote in term %d is not on its disk", term)
		}
	}
}

// cut shortens a request to what a slow line and a slow disk can take in time. raft goes on from
// what was sent.
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

// InstallSnapshot implements raft.Transport. Like AppendEntries it is held while the peer is down.
func (t *Transport) InstallSnapshot(
	id raft.ServerID,
	_ raft.ServerAddress,
	req *raft.InstallSnapshotRequest,
	resp *raft.InstallSnapshotResponse,
	data io.Reader,
) error {
	peer := string(id)
	for round := 0; ; round++ {
		if err := t.holder.hold(peer, req.Term, round); err != nil {
			return err
		}
		if err := t.maySend(); err != nil {
			return err
		}
		sent := *req
		sent.Leader = t.annotate(false, req.LastLogIndex, req.LastLogTerm)
		err := t.out.InstallSnapshot(id, raft.ServerAddress(id), &sent, resp, data)
		if isContradiction(err) {
			t.complain(peer, err)
		}
		if isUnreached(err) {
			continue // nothing of data was read
		}
		return t.finish(peer, resp.Term, err)
	}
}

// RequestVote implements raft.Transport.
func (t *Transport) RequestVote(
	id raft.ServerID,
	_ raft.ServerAddress,
	req *raft.RequestVoteRequest,
	resp *raft.RequestVoteResponse,
) error {
	if t.ended() {
		return peerconn.ErrClosed
	}
	if err := t.awaitVote(req.Term); err != nil {
		return err
	}
	err := t.again(string(id), func() error { return t.out.RequestVote(id, raft.ServerAddress(id), req, resp) })
	return t.finish(string(id), resp.Term, err)
}

// RequestPreVote implements raft.WithPreVote.
func (t *Transport) RequestPreVote(
	id raft.ServerID,
	_ raft.ServerAddress,
	req *raft.RequestPreVoteRequest,
	resp *raft.RequestPreVoteResponse,
) error {
	if t.ended() {
		return peerconn.ErrClosed
	}
	err := t.again(string(id), func() error { return t.out.RequestPreVote(id, raft.ServerAddress(id), req, resp) })
	return t.finish(string(id), resp.Term, err)
}

// again repeats a request for a vote while pooled connections break. After a peer has restarted,
// each of them does so once, and raft would not ask again before the next election, a second later.
// A vote may be asked for twice: the peer gives the same answer.
func (t *Transport) again(peer string, ask func() error) error {
	for broken := 0; ; broken++ {
		before := t.streams.broken(peer)
		err := ask()
		if err == nil || isUnreached(err) || t.streams.broken(peer) == before || broken > MaxPool || t.ended() {
			return err
		}
	}
}

// TimeoutNow implements raft.Transport. It returns nil if the answer takes longer than
// timing.StandAnswer. raft gives a transfer of the leadership up after its election timeout, but
// not before this call has returned. It takes no writes and no other transfer until then.
func (t *Transport) TimeoutNow(
	id raft.ServerID,
	_ raft.ServerAddress,
	req *raft.TimeoutNowRequest,
	_ *raft.TimeoutNowResponse,
) error {
	told := make(chan error, 1)
	t.mu.Lock()
	if t.stopped {
		t.mu.Unlock()
		return peerconn.ErrClosed
	}
	t.wg.Go(func() {
		err := t.out.TimeoutNow(id, raft.ServerAddress(id), req, new(raft.TimeoutNowResponse))
		told <- t.finish(string(id), 0, err)
	})
	t.mu.Unlock()
	select {
	case err := <-told:
		return err
	case <-time.After(timing.StandAnswer):
		return nil
	}
}

// Tell sends a peer an AppendEntries without entries, which says how far the log is committed. It
// reports whether the peer has applied that (see Node.Applied). raft itself would tell the peer
// with its next entry, or after a while. req must have this node's present term as leader, as
// PrevLogEntry a Match of the peer, and a LeaderCommitIndex no higher than that.
func (t *Transport) Tell(id string, req raft.AppendEntriesRequest) bool {
	if t.maySend() != nil {
		return false
	}
	//lint:ignore SA1019 see annotation
	req.Leader = t.annotate(true, req.PrevLogEntry, req.PrevLogTerm)
	var resp raft.AppendEntriesResponse
	err := t.out.AppendEntries(raft.ServerID(id), raft.ServerAddress(id), &req, &resp)
	if isContradiction(err) {
		t.complain(id, err)
	}
	if err != nil || plausible(t.cfg.Node, id, resp.Term) != nil {
		return false
	}
	t.cfg.Peers.Answered(id)
	return resp.Success
}

// finish checks the answer to a request.
func (t *Transport) finish(peer string, term uint64, err error) error {
	if err != nil {
		return err
	}
	if err := plausible(t.cfg.Node, peer, term); err != nil {
		return err
	}
	t.cfg.Peers.Observe(peer)
	return nil
}

// maySend reports why no AppendEntries may be sent now.
func (t *Transport) maySend() error {
	if t.ended() {
		return peerconn.ErrClosed
	}
	if t.cfg.Node.Stalled() {
		return ErrStalled
	}
	return nil
}

// annotate makes the annotation of a request that names the entry at index.
func (t *Transport) annotate(notify bool, index, term uint64) []byte {
	a := annotation{notify: notify}
	if index > 0 {
		if sum, ok := t.cfg.History.Sum(index, term); ok {
			a.sum, a.known = sum, true
		}
	}
	return a.encode()
}

// complain logs that a peer has found its log to contradict ours.
func (t *Transport) complain(peer string, err error) {
	if t.cfg.Throttle.Pass("differs " + peer) {
		t.cfg.Logger.Error("a node's log contradicts this node's, so it stops; its own log says what to do",
			"peer", peer, "error", err)
	}
}

// isUnreached reports whether a request was not sent, because no connection could be made.
func isUnreached(err error) bool {
	var unreached *peerconn.DialError
	return errors.As(err, &unreached)
}
