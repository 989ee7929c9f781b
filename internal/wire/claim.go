package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/history"
)

// What goes with an AppendEntries or InstallSnapshot beside what raft says: whether it is of Tell, and
// the sum of the sender's log at the entry that it names. It is where raft of old had the leader's name,
// and does not look since requests carry a header.
const (
	asideSize  = 9
	asideTold  = 1 // flags
	asideKnown = 2
)

// aside makes what goes with a request that names the entry at index.
func (t *Transport) aside(told bool, index, term uint64) []byte {
	b := make([]byte, 1, asideSize)
	if told {
		b[0] |= asideTold
	}
	var sum uint64
	if t.port.cfg.Sum != nil && index > 0 {
		var ok bool
		if sum, ok = t.port.cfg.Sum(index, term); ok {
			b[0] |= asideKnown
		}
	}
	return binary.BigEndian.AppendUint64(b, sum)
}

// readAside returns what goes with a request; nothing if it is none of ours.
func readAside(b []byte) (told, known bool, sum uint64) {
	if len(b) != asideSize {
		return false, false, 0
	}
	return b[0]&asideTold != 0, b[0]&asideKnown != 0, binary.BigEndian.Uint64(b[1:])
}

func isTold(req *raft.AppendEntriesRequest) bool {
	told, _, _ := readAside(req.Leader) //lint:ignore SA1019 see aside
	return told
}

// compare reports whether what a leader says of its log contradicts the log of this node.
func (t *Transport) compare(peer string, cmd any) error {
	if t.port.cfg.Compare == nil {
		return nil
	}
	var c history.Claim
	var term uint64
	switch req := cmd.(type) {
	case *raft.AppendEntriesRequest:
		if req.PrevLogEntry == 0 && len(req.Entries) == 0 {
			return nil // a heartbeat says nothing of the log
		}
		_, known, sum := readAside(req.Leader) //lint:ignore SA1019 see aside
		c, term = history.Claim{Index: req.PrevLogEntry, Term: req.PrevLogTerm, Sum: history.Sum(sum), Known: known, Entries: req.Entries}, req.Term
	case *raft.InstallSnapshotRequest:
		_, known, sum := readAside(req.Leader)
		c, term = history.Claim{Index: req.LastLogIndex, Term: req.LastLogTerm, Sum: history.Sum(sum), Known: known}, req.Term
	default:
		return nil
	}
	if err := t.port.cfg.Compare(peer, term, c); err != nil {
		return fmt.Errorf("%s: %w", differs, err)
	}
	return nil
}

// mayLead reports why a node is not to be voted for.
func (t *Transport) mayLead(cmd any) error {
	if t.port.cfg.MayLead == nil {
		return nil
	}
	switch req := cmd.(type) {
	case *raft.RequestVoteRequest:
		return t.port.cfg.MayLead(req.LastLogIndex)
	case *raft.RequestPreVoteRequest:
		return t.port.cfg.MayLead(req.LastLogIndex)
	}
	return nil
}

// differs begins the text of a refusal of compare. NetworkTransport hands on nothing but the text.
const differs = "the logs of the two nodes contradict each other"

func isDiffers(err error) bool { return err != nil && strings.Contains(err.Error(), differs) }

// errOlder is wrapped by the refusals of a process that another one of its node has taken the place of.
var errOlder = errors.New("it is not the newest process of its node")

// complainDiffers says that a peer has found its log to contradict ours.
func (p *Port) complainDiffers(peer string, err error) {
	if p.said.pass("differs " + peer) {
		p.cfg.Logger.Error("a node's log contradicts this node's, and it takes part no more; see its own log for what to do", "peer", peer, "error", err)
	}
}
