package rafttransport

import (
	"sync"

	"github.com/hashicorp/raft"
)

// progress is how far the logs of the nodes are, by what they say in raft's own traffic.
type progress struct {
	mu      sync.Mutex
	matches map[string]match
	commits map[string]commit // by the leader that said it
	led     map[string]string // the incarnation of a peer that replicated to us last
}

// match is what a follower has confirmed to have in its log.
type match struct {
	index, term uint64 // of the entry
	leader      uint64 // the term of this node as leader
	incarnation string // of the follower that has confirmed it, or an earlier one
}

// commit is how far a leader has said that the log is committed. It has all of that on its disk.
type commit struct {
	index       uint64
	incarnation string // of the leader
}

func newProgress() *progress {
	return &progress{matches: make(map[string]match), commits: make(map[string]commit), led: make(map[string]string)}
}

// confirmed records that a follower has confirmed the end of req, and reports whether that is news.
func (p *progress) confirmed(id, incarnation string, req *raft.AppendEntriesRequest) (grew bool) {
	now := match{req.PrevLogEntry, req.PrevLogTerm, req.Term, incarnation}
	if n := len(req.Entries); n > 0 {
		now.index, now.term = req.Entries[n-1].Index, req.Entries[n-1].Term
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.matches[id]
	grew = now.leader > old.leader || now.leader == old.leader && now.index > old.index
	if grew {
		p.matches[id] = now
	}
	return grew
}

// match returns what a follower has confirmed to this node as leader of that term.
func (p *progress) match(id string, leader uint64) match {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.matches[id]; m.leader == leader {
		return m
	}
	return match{}
}

// leads records which incarnation of a peer leads, and how far it says that the log is committed.
func (p *progress) leads(id, incarnation string, committed uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.led[id] = incarnation
	if committed == 0 {
		return
	}
	if c := p.commits[id]; c.incarnation != incarnation || c.index < committed {
		p.commits[id] = commit{committed, incarnation}
	}
}

func (p *progress) committed(id, incarnation string) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.commits[id]; c.incarnation == incarnation {
		return c.index
	}
	return 0
}

func (p *progress) ledBy(id string) (incarnation string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.led[id]
}
