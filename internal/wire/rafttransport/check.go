package rafttransport

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/history"
)

const termJump = 1 << 20 // how far the term of another node may be ahead of ours

// validate reports why a request of an authenticated peer cannot be right, and returns its term; 0
// if it has none.
func validate(peer string, cmd any) (term uint64, err error) {
	var header raft.RPCHeader
	switch c := cmd.(type) {
	case *raft.AppendEntriesRequest:
		header, term = c.RPCHeader, c.Term
		for i, e := range c.Entries {
			if e == nil || e.Index != c.PrevLogEntry+1+uint64(i) || e.Term > c.Term {
				return 0, errors.New("the entries are not in order")
			}
			switch e.Type {
			case raft.LogCommand, raft.LogNoop, raft.LogBarrier, raft.LogConfiguration:
			default:
				return 0, fmt.Errorf("entries of type %d are not known", e.Type) // raft would panic
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
		return 0, fmt.Errorf("%T is not known", cmd)
	}
	if string(header.ID) != peer || string(header.Addr) != peer {
		return 0, fmt.Errorf("node %s sent an RPC in the name of another", peer)
	}
	return term, nil
}

// plausible refuses a term that no series of elections can have led to.
func plausible(n Node, peer string, term uint64) error {
	if own, ok := n.Term(); ok && term > own && term-own > termJump {
		return fmt.Errorf("the term %d of node %s is not plausible, ours is %d", term, peer, own)
	}
	return nil
}

// claimOf returns what a leader says about its log, and its term; false if it says nothing.
func claimOf(cmd any) (c history.Claim, term uint64, ok bool) {
	switch req := cmd.(type) {
	case *raft.AppendEntriesRequest:
		if req.PrevLogEntry == 0 && len(req.Entries) == 0 {
			return history.Claim{}, 0, false // a heartbeat
		}
		a := decodeAnnotation(req.Leader) //lint:ignore SA1019 see annotation
		return history.Claim{
			Index: req.PrevLogEntry, Term: req.PrevLogTerm,
			Sum: history.Sum(a.sum), Known: a.known, Entries: req.Entries,
		}, req.Term, true
	case *raft.InstallSnapshotRequest:
		a := decodeAnnotation(req.Leader)
		return history.Claim{
			Index: req.LastLogIndex, Term: req.LastLogTerm, Sum: history.Sum(a.sum), Known: a.known,
		}, req.Term, true
	}
	return history.Claim{}, 0, false
}

// compare reports whether what a leader says about its log contradicts the log of this node.
func compare(h History, peer string, cmd any) error {
	c, term, ok := claimOf(cmd)
	if !ok {
		return nil
	}
	if err := h.Compare(peer, term, c); err != nil {
		return fmt.Errorf("%s: %w", contradicts, err)
	}
	return nil
}

// contradicts begins the text of a refusal by compare. NetworkTransport hands on only the text.
const contradicts = "the logs of the two nodes contradict each other"

func isContradiction(err error) bool { return err != nil && strings.Contains(err.Error(), contradicts) }

// leads reports why a node is not told to stand for election: the request came late, and another
// node has been elected meanwhile.
func leads(n Node, peer string, cmd any) error {
	if _, ok := cmd.(*raft.TimeoutNowRequest); !ok {
		return nil
	}
	if leader, _ := n.Standing(); leader != "" && leader != peer {
		return errors.New("another node leads")
	}
	return nil
}

// mayLead reports why a candidate gets no vote.
func mayLead(p Policy, cmd any) error {
	switch req := cmd.(type) {
	case *raft.RequestVoteRequest:
		return p.MayLead(req.LastLogIndex)
	case *raft.RequestPreVoteRequest:
		return p.MayLead(req.LastLogIndex)
	}
	return nil
}
