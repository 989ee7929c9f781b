package wire

import "github.com/hashicorp/raft"

// What this node has heard from leaders.

// commit is how far a leader has said that the log is committed. It has all of that on its disk.
type commit struct {
	index   uint64
	process string
}

// Committed returns how far that process of a peer has said, as leader, that the log is committed; 0 if
// it has not.
func (t *Transport) Committed(id, process string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.commits[id]; c.process == process {
		return c.index
	}
	return 0
}

// LedBy returns the process of a peer that led last, as far as this node was told; empty: none has.
func (t *Transport) LedBy(id string) (process string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.led[id]
}

// heardLeader notes which process leads, and what it says of the commit.
func (t *Transport) heardLeader(id, process string, cmd any) {
	req, ok := cmd.(*raft.AppendEntriesRequest)
	if !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.led[id] = process
	if req.LeaderCommitIndex == 0 {
		return
	}
	if c := t.commits[id]; c.process != process || c.index < req.LeaderCommitIndex {
		t.commits[id] = commit{req.LeaderCommitIndex, process}
	}
}
