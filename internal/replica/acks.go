package replica

import (
	"context"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/hashicorp/raft"
)

// acks lets a leader know which index each other member has applied. A write is acknowledged when every session in the state has
// it, so that whoever asks any node that has a lease finds it; a session that is gone has ended, which takes the promises of
// a majority to lapse. raft tells followers of a commit only with the next entry or after a while; the leader says the same true thing
// at once.
type acks struct {
	n    *Replica
	l    *Leadership
	poke chan struct{} // closed and replaced, under mu, when anything below changes

	mu      sync.Mutex
	Applied map[string]uint64
	Wanted  map[string]uint64
	asking  map[string]bool      // a goroutine is at it
	Stuck   map[string]time.Time // since when a member has not come closer to what is wanted of it
}

func NewAcks(n *Replica, l *Leadership) *acks {
	return &acks{n: n, l: l, poke: make(chan struct{}), Applied: map[string]uint64{}, Wanted: map[string]uint64{}, asking: map[string]bool{}, Stuck: map[string]time.Time{}}
}

// wait returns when every session in the state has applied index, but for those whose process is gone.
func (a *acks) wait(ctx context.Context, index uint64) error {
	for {
		missing, poke := a.want(index, a.Gone)
		if len(missing) == 0 {
			return nil
		}
		// A session leaves by an entry, and a process without telling anybody.
		timer := time.NewTimer(a.n.Timing.Poll())
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

// want has every session asked for index, except those that skip is true for, and returns those that have not got it.
func (a *acks) want(index uint64, skip func(string, *state.Session) bool) (missing []string, poke <-chan struct{}) {
	var there []string
	it := a.n.Store.State().Sessions.Root().Iterator()
	for k, ses, ok := it.Next(); ok; k, ses, ok = it.Next() {
		id := string(k)
		switch {
		case ses.Incarnation == a.n.Self.Incarnation || skip(id, ses):
		case id == a.n.Self.ID:
			missing = append(missing, id) // an earlier process of this node, which nobody can ask
		default:
			there = append(there, id)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range there {
		if a.Applied[id] >= index {
			continue
		}
		missing = append(missing, id)
		a.demand(id, index)
	}
	return missing, a.poke
}

// Gone reports whether a session's process reads no more: it has said itself that the session is over, another
// process of its node answers at its address, or its connections have been closed and its port refuses. The latter is
// evidence and no proof, since a firewall can do the same; so it excuses from reading along, and never frees what the
// session holds. That another process of the node has spoken is no evidence: it may be of a copy of the directory.
func (a *acks) Gone(id string, ses *state.Session) bool {
	return a.n.Book.OverSession(id) >= ses.Number || a.n.Book.HasEnded(ses.Incarnation) || a.n.Port.HungUp(id)
}

// Late reports whether a member has come no closer to what writers wait for in three leases: a slow line alone is no reason to do without it.
func (a *acks) Late(id string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.Applied[id] < a.Wanted[id] && now.Sub(a.Stuck[id]) > a.n.Timing.Stuck()
}

// There reports whether a member has been heard of within the last lease. Nothing that is promised hangs on that.
func (a *acks) There(id string) bool {
	t := a.n.Port.Transport()
	if t.Refused(id) {
		return false
	}
	heard, first := t.Contact(id), a.l.Since // a new leader has not heard of anybody yet
	if id == a.l.before {
		first = a.l.beforeHeard
	}
	if heard.Before(first) {
		heard = first
	}
	return time.Since(heard) < a.n.Timing.Lease
}

// Matched is called when a member has stored more entries. One that has been away is told at once how far they are committed.
func (a *acks) Matched(id string) {
	index, _ := a.n.Port.Transport().Match(id, a.l.Term)
	commit := min(a.l.Raft.CommitIndex(), index)
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.poke)
	a.poke = make(chan struct{})
	if a.Applied[id] < commit {
		a.demand(id, commit)
	}
}

// returned is called when a member has to catch up: what it had applied went with its last process.
func (a *acks) returned(id string, index uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Applied[id], a.Stuck[id] = 0, time.Now()
	a.demand(id, index)
}

// demand has a member asked until it has applied index. The caller holds the lock.
func (a *acks) demand(id string, index uint64) {
	if a.Applied[id] >= a.Wanted[id] {
		a.Stuck[id] = time.Now()
	}
	a.Wanted[id] = max(a.Wanted[id], index)
	if !a.asking[id] {
		a.asking[id] = true
		a.n.Life.Tasks.Go(func() { a.ask(a.l.Ctx, id) })
	}
}

// ask tells a member of the commit until it has applied all that is wanted of it, or is gone.
func (a *acks) ask(ctx context.Context, id string) {
	for {
		a.mu.Lock()
		poke, want := a.poke, a.Wanted[id]
		if a.Applied[id] >= want || ctx.Err() != nil {
			a.asking[id] = false
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		if applied := a.tell(id, want); applied > 0 {
			a.mu.Lock()
			a.Applied[id], a.Stuck[id] = max(a.Applied[id], applied), time.Now()
			close(a.poke)
			a.poke = make(chan struct{})
			a.mu.Unlock()
			continue
		}
		if !a.There(id) {
			a.mu.Lock()
			a.asking[id] = false
			a.mu.Unlock()
			return
		}
		timer := time.NewTimer(a.n.Timing.Poll())
		select {
		case <-poke:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// tell says to a member how far the log is committed, if it has stored that far, and returns the index that it has then applied,
// 0 if it has not got as far as want. It is an AppendEntries without entries, which raft judges as any other.
func (a *acks) tell(id string, want uint64) uint64 {
	index, term := a.n.Port.Transport().Match(id, a.l.Term)
	commit := min(a.l.Raft.CommitIndex(), index)
	if commit < want {
		return 0
	}
	ok := a.n.Port.Transport().Tell(id, raft.AppendEntriesRequest{
		RPCHeader:         a.n.rpcHeader(),
		Term:              a.l.Term,
		PrevLogEntry:      index,
		PrevLogTerm:       term,
		LeaderCommitIndex: commit,
	})
	if !ok {
		return 0
	}
	return commit
}

// AwaitApplied waits until this node has applied index, as long as the leader waits for it. Entries of raft's own, which the state
// machine does not see, come only at the beginning of a term, before anybody is told of anything.
func (n *Replica) AwaitApplied(index uint64) error {
	ctx, cancel := context.WithTimeout(n.Life.Works, n.Timing.Lease)
	defer cancel()
	_, err := n.Store.Wait(ctx, func(s *state.State) bool { return s.Index >= index })
	return err
}
