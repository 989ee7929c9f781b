package replica

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// Acks tells a leader which index each other member has applied. A write is acknowledged when every
// session in the state has applied it, so that every node with a lease can read it. A session that
// does not answer ends when a majority's grants to it have expired.
//
// raft tells followers of a commit only with the next entry or after a while, so Acks tells them at
// once. The methods are safe for concurrent use.
type Acks struct {
	group  *Group
	timing timing.Timing
	ctx    context.Context // of the term
	raft   *raft.Raft
	term   uint64
	since  time.Time // when the term began
	before string    // the leader of the last term
	heard  time.Time // when this node had last heard of it

	progress notify.Signal // a field below has changed
	mu       sync.Mutex
	applied  map[string]uint64
	wanted   map[string]uint64
	asking   map[string]bool      // a goroutine asks the member
	stuck    map[string]time.Time // since when the member has not come closer to what is wanted of it
}

// wait returns when every session in the state has applied index, except those whose process is
// gone.
func (a *Acks) wait(ctx context.Context, index uint64) error {
	err := notify.Loop(ctx, func() (time.Time, bool) {
		// A session ends by an entry, and a process without a message to anybody.
		return time.Now().Add(a.timing.Poll()), len(a.want(index, a.Gone)) == 0
	}, &a.progress)
	if err != nil {
		return errUnknown
	}
	return nil
}

// want has every session asked for index, except those that skip is true for. It returns the nodes
// of the sessions that have not applied index.
func (a *Acks) want(index uint64, skip func(string, *state.Session) bool) (missing []string) {
	var there []string
	it := a.group.store.State().Sessions.Root().Iterator()
	for k, ses, ok := it.Next(); ok; k, ses, ok = it.Next() {
		id := string(k)
		switch {
		case ses.Incarnation == a.group.self.Incarnation || skip(id, ses):
		case id == a.group.self.ID:
			missing = append(missing, id) // an earlier process of this node, which cannot be asked
		default:
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
		a.demand(id, index)
	}
	return missing
}

// Gone reports whether a session's process reads no more: it has said that its session is over,
// another process of its node answers at its address, or its connections were closed and its port
// refuses. The last of these is evidence and no proof, since a firewall can do the same. So it
// excuses a session from having applied writes, and never frees what the session holds. A message
// of another process of the node is no evidence: that may be of a copy of the directory.
func (a *Acks) Gone(id string, ses *state.Session) bool {
	return a.group.peers.OverSession(id) >= ses.Number || a.group.peers.HasEnded(ses.Incarnation) || a.group.port.BelievedDead(id)
}

// Late reports whether a member has come no closer for a while to what writers wait for. A slow
// link alone is no reason to go on without it.
func (a *Acks) Late(id string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.applied[id] < a.wanted[id] && now.Sub(a.stuck[id]) > a.timing.Stuck()
}

// There reports whether a member has answered this leader lately. A member that is at rest answers
// only heartbeats, so that may be two leases ago. No guarantee depends on it.
func (a *Acks) There(id string) bool {
	t := a.group.port.Transport()
	if t.Refused(id) {
		return false
	}
	heard, first := t.Contact(id), a.since // a new leader has not heard of anybody yet
	if id == a.before {
		first = a.heard
	}
	if heard.Before(first) {
		heard = first
	}
	return time.Since(heard) < a.timing.Present()
}

// Matched is called when a member has stored more entries. A member that was away is told at once
// how far they are committed.
func (a *Acks) Matched(id string) {
	index, _ := a.group.port.Transport().Match(id, a.term)
	commit := min(a.raft.CommitIndex(), index)
	a.mu.Lock()
	if a.applied[id] < commit {
		a.demand(id, commit)
	}
	a.mu.Unlock()
	a.progress.Notify()
}

// returned is called when a member has to catch up: its last process took with it what it had
// applied.
func (a *Acks) returned(id string, index uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.applied[id], a.stuck[id] = 0, time.Now()
	a.demand(id, index)
}

// demand has a member asked until it has applied index. The caller holds the lock.
func (a *Acks) demand(id string, index uint64) {
	if a.applied[id] >= a.wanted[id] {
		a.stuck[id] = time.Now()
	}
	a.wanted[id] = max(a.wanted[id], index)
	if !a.asking[id] {
		a.asking[id] = true
		a.group.life.Tasks.Go(func() { a.ask(id) })
	}
}

// ask tells a member of the commit until it has applied everything that is wanted of it, is not
// there or the term ends.
func (a *Acks) ask(id string) {
	_ = notify.Loop(a.ctx, func() (time.Time, bool) {
		for a.ctx.Err() == nil {
			want, more := a.missing(id)
			if !more {
				return time.Time{}, true
			}
			applied := a.tell(id, want)
			if applied == 0 {
				break
			}
			a.advance(id, applied)
		}
		if !a.There(id) {
			a.mu.Lock()
			a.asking[id] = false
			a.mu.Unlock()
			return time.Time{}, true
		}
		return time.Now().Add(a.timing.Poll()), false
	}, &a.progress)
}

// missing returns what is wanted of a member. If it has applied that, nobody asks it any more.
func (a *Acks) missing(id string) (want uint64, more bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	want = a.wanted[id]
	more = a.applied[id] < want
	a.asking[id] = more
	return want, more
}

// advance notes what a member has applied.
func (a *Acks) advance(id string, index uint64) {
	a.mu.Lock()
	a.applied[id], a.stuck[id] = max(a.applied[id], index), time.Now()
	a.mu.Unlock()
	a.progress.Notify()
}

// tell tells a member how far the log is committed, if it has stored that far. It returns the index
// that the member has applied then, 0 if that is less than want. The message is an AppendEntries
// without entries, which raft treats as any other.
func (a *Acks) tell(id string, want uint64) uint64 {
	index, term := a.group.port.Transport().Match(id, a.term)
	commit := min(a.raft.CommitIndex(), index)
	if commit < want {
		return 0
	}
	ok := a.group.port.Transport().Tell(id, raft.AppendEntriesRequest{
		RPCHeader:         a.group.header(),
		Term:              a.term,
		PrevLogEntry:      index,
		PrevLogTerm:       term,
		LeaderCommitIndex: commit,
	})
	if !ok {
		return 0
	}
	return commit
}
