package flotilla

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// acks lets a leader know which index each other member has applied. A write is acknowledged when every member that is
// there has it, so that whoever asks any node finds it. raft tells followers of a commit only with the next entry or after
// a while; the leader says the same true thing at once.
type acks struct {
	n    *Node
	l    *leadership
	poke chan struct{} // closed and replaced, under mu, when anything below changes

	mu      sync.Mutex
	applied map[string]uint64
	wanted  map[string]uint64
	asking  map[string]bool // a goroutine is at it
}

func newAcks(n *Node, l *leadership) *acks {
	return &acks{n: n, l: l, poke: make(chan struct{}), applied: map[string]uint64{}, wanted: map[string]uint64{}, asking: map[string]bool{}}
}

// wait returns when every member that is there has applied index. One that has been silent for a lease, or whose process
// is gone, is not there.
func (a *acks) wait(ctx context.Context, index uint64) error {
	for {
		missing, poke := a.want(index)
		if len(missing) == 0 {
			return nil
		}
		// The silent ones leave by the clock alone.
		timer := time.NewTimer(a.n.pace.lease / 4)
		select {
		case <-poke:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errUnknown
		}
		timer.Stop()
	}
}

// want has every member that is there asked for index, and returns those that have not got it.
func (a *acks) want(index uint64) (missing []string, poke <-chan struct{}) {
	members := a.n.others()
	there := members[:0]
	for _, id := range members {
		if a.there(id) {
			there = append(there, id)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range there {
		if a.applied[id] >= index {
			continue
		}
		missing = append(missing, id)
		a.wanted[id] = max(a.wanted[id], index)
		if !a.asking[id] {
			a.asking[id] = true
			a.n.tasks.run(func() { a.ask(a.l.ctx, id) })
		}
	}
	return missing, a.poke
}

// there reports whether a member has been heard of within the last lease.
func (a *acks) there(id string) bool {
	t := a.n.port.Transport()
	if t.Refused(id) {
		return false
	}
	heard, first := t.Contact(id), a.l.since // a new leader has not heard of anybody yet
	if id == a.l.before {
		first = a.l.beforeHeard
	}
	if heard.Before(first) {
		heard = first
	}
	return time.Since(heard) < a.n.pace.lease
}

// matched is called when a member has stored more entries.
func (a *acks) matched() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.poke)
	a.poke = make(chan struct{})
}

// ask tells a member of the commit and learns what it has applied, until that is all that is wanted of it, or it is gone.
func (a *acks) ask(ctx context.Context, id string) {
	for {
		index, _ := a.n.port.Transport().Match(id)
		a.mu.Lock()
		poke, want := a.poke, a.wanted[id]
		if a.applied[id] >= want || ctx.Err() != nil {
			a.asking[id] = false
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		applied := uint64(0)
		if index >= want {
			applied = a.tell(ctx, id, want)
		}
		if applied > 0 {
			a.mu.Lock()
			a.applied[id] = max(a.applied[id], applied)
			close(a.poke)
			a.poke = make(chan struct{})
			a.mu.Unlock()
			continue
		}
		if !a.there(id) {
			a.mu.Lock()
			a.asking[id] = false
			a.mu.Unlock()
			return
		}
		timer := time.NewTimer(a.n.pace.lease / 12)
		select {
		case <-poke:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// tell says to a member, which has stored the entry at its match, how far the log is committed, and returns the index that
// it has then applied, 0 if it does not answer.
func (a *acks) tell(ctx context.Context, id string, want uint64) uint64 {
	index, term := a.n.port.Transport().Match(id)
	commit := min(a.l.raft.CommitIndex(), index)
	e := encoder{}
	e.uint(a.l.term)
	e.uint(index)
	e.uint(term)
	e.uint(commit)
	e.uint(want)
	ctx, cancel := context.WithTimeout(ctx, a.n.pace.lease)
	defer cancel()
	reply, err := a.n.port.Call(ctx, id, callCommit, e.b)
	if err != nil {
		return 0
	}
	d := decoder{b: reply}
	applied := d.uint()
	if d.end() != nil {
		return 0
	}
	return applied
}

// serveCommit is the member's end of tell: an AppendEntries without entries, which raft judges as any other, and then a
// wait for the state machine.
func (n *Node) serveCommit(ctx context.Context, peer string, body []byte) ([]byte, error) {
	d := decoder{b: body}
	term, index, indexTerm, commit, want := d.uint(), d.uint(), d.uint(), d.uint(), d.uint()
	if err := d.end(); err != nil {
		return nil, err
	}
	if r := n.raft.Load(); r == nil || r.CurrentTerm() != term || n.leader() != peer {
		return nil, errNotLeader
	}
	if n.fsm.state().index < want {
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(peer), Addr: []byte(peer)}
		_, err := n.port.Transport().Inject(ctx, &raft.AppendEntriesRequest{
			RPCHeader:         header,
			Term:              term,
			PrevLogEntry:      index,
			PrevLogTerm:       indexTerm,
			LeaderCommitIndex: commit,
		})
		if err != nil {
			return nil, err
		}
	}
	s, err := n.fsm.wait(ctx, func(s *state) bool { return s.index >= want })
	if err != nil {
		return nil, err
	}
	var e encoder
	e.uint(s.index)
	return e.b, nil
}
