package replica

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Leadership is one term of this node as leader.
type Leadership struct {
	n     *Replica
	Ctx   context.Context // the node's own, until the term is over
	stop  context.CancelFunc
	Raft  *raft.Raft
	Term  uint64
	Since time.Time
	Acks  *acks

	before      string    // who led before
	beforeHeard time.Time // when it was last heard of

	Mu        sync.Mutex
	Tried     map[raft.ServerID]bool // peers that the leadership was offered to
	Expelled  map[string]bool        // members that are being removed although they are present: their sessions are to end
	settled   uint64                 // the last configuration that every session is known to have applied
	settledAt time.Time              // and since when
}

func NewLeadership(ctx context.Context, n *Replica, r *raft.Raft, term uint64) *Leadership {
	l := &Leadership{n: n, Raft: r, Term: term, Since: time.Now(), Tried: make(map[raft.ServerID]bool), Expelled: make(map[string]bool)}
	l.Ctx, l.stop = context.WithCancel(ctx)
	l.Acks = NewAcks(n, l)
	return l
}

// AwaitStable returns when another voter may come or go. Majorities of the voters before and after one such change always meet. So that a
// lease and a verdict cannot come from voters that are two changes apart, every session must have applied the last one, and promises that
// were counted before that must have lapsed. It returns the index of the configuration that this is true of, and the change must be of that one.
func (l *Leadership) AwaitStable(ctx context.Context) (uint64, error) {
	n := l.n
	s := n.Store.State()
	if err := l.AwaitApplied(ctx, s.Elected); err != nil {
		return 0, fmt.Errorf("the last change of the voters: %w", err)
	}
	l.Mu.Lock()
	if l.settled != s.Elected {
		l.settled, l.settledAt = s.Elected, time.Now()
	}
	at := l.settledAt
	l.Mu.Unlock()
	select {
	case <-time.After(time.Until(at.Add(n.Timing.Grant()))):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-l.Ctx.Done():
		return 0, rpc.ErrNotLeader
	}
	return s.Elected, nil
}

// AwaitApplied returns when every session in the state has applied index.
func (l *Leadership) AwaitApplied(ctx context.Context, index uint64) error {
	n := l.n
	for {
		missing, poke := l.Acks.want(index, func(string, *state.Session) bool { return false })
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-poke:
		case <-time.After(n.Timing.Poll()):
		case <-ctx.Done():
			return fmt.Errorf("%s has not heard of it: %w", missing[0], context.Cause(ctx))
		case <-l.Ctx.Done():
			return rpc.ErrNotLeader
		}
	}
}

// Expel ends a member's session by a verdict, as if it were silent: what it holds is free when its lease is over, and no sooner. No other session of
// it is opened until stop is called.
func (l *Leadership) Expel(ctx context.Context, id string) (stop func(), err error) {
	n := l.n
	l.Mu.Lock()
	l.Expelled[id] = true
	l.Mu.Unlock()
	stop = func() {
		l.Mu.Lock()
		defer l.Mu.Unlock()
		delete(l.Expelled, id)
	}
	n.Up.WakeLease()
	if _, err = n.Store.Wait(ctx, func(s *state.State) bool { return s.Session(id) == nil }); err != nil {
		stop()
	}
	return stop, err
}

// Expels reports whether a member is being removed.
func (l *Leadership) Expels(id string) bool {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	return l.Expelled[id]
}

// Without counts the voters that are left when a node is gone, and those of them that are there. The change is committed by those who stay: without a
// majority of them it would never be, and nothing after it.
func (l *Leadership) Without(gone string) (left, there int) {
	n := l.n
	for _, srv := range n.Servers() {
		if id := string(srv.ID); srv.Suffrage == raft.Voter && id != gone {
			left++
			if id == n.Self.ID || l.Acks.There(id) {
				there++
			}
		}
	}
	return left, there
}

// AwaitLeading returns this node's leadership. A node that has just been elected is waited for: its first entry is on the way.
func (n *Replica) AwaitLeading(ctx context.Context) (*Leadership, error) {
	ctx, cancel := context.WithTimeout(ctx, n.Timing.Lease)
	defer cancel()
	for {
		changed := n.Life.Changed.Wait()
		if l := n.Leading.Load(); l != nil {
			return l, nil
		}
		if r := n.Raft.Load(); r == nil || r.State() != raft.Leader {
			return nil, rpc.ErrNotLeader
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, rpc.ErrNotLeader
		}
	}
}

// WaitFuture waits for a future of raft, which knows no contexts, within the bounds of one. The goroutine ends when raft answers
// or ends.
func WaitFuture(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
