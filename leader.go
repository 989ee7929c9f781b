package flotilla

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// leadership is one term of this node as leader.
type leadership struct {
	ctx   context.Context // the node's own, until the term is over
	stop  context.CancelFunc
	raft  *raft.Raft
	term  uint64
	since time.Time
	acks  *acks

	before      string    // who led before
	beforeHeard time.Time // when it was last heard of

	mu        sync.Mutex
	tried     map[raft.ServerID]bool // peers that the leadership was offered to
	expelled  map[string]bool        // members that are being removed although they are present: their sessions are to end
	settled   uint64                 // the last configuration that every session is known to have applied
	settledAt time.Time              // and since when
}

func newLeadership(ctx context.Context, n *replica, r *raft.Raft, term uint64) *leadership {
	l := &leadership{raft: r, term: term, since: time.Now(), tried: make(map[raft.ServerID]bool), expelled: make(map[string]bool)}
	l.ctx, l.stop = context.WithCancel(ctx)
	l.acks = newAcks(n, l)
	return l
}

// settle returns when another voter may come or go. Majorities of the voters before and after one such change always meet. So that a
// lease and a verdict cannot come from voters that are two changes apart, every session must have applied the last one, and promises that
// were counted before that must have lapsed. It returns the index of the configuration that this is true of, and the change must be of that one.
func (l *leadership) settle(ctx context.Context, n *replica) (uint64, error) {
	s := n.store.State()
	if err := l.everyone(ctx, n, s.Elected); err != nil {
		return 0, fmt.Errorf("the last change of the voters: %w", err)
	}
	l.mu.Lock()
	if l.settled != s.Elected {
		l.settled, l.settledAt = s.Elected, time.Now()
	}
	at := l.settledAt
	l.mu.Unlock()
	select {
	case <-time.After(time.Until(at.Add(n.timing.Grant()))):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-l.ctx.Done():
		return 0, rpc.ErrNotLeader
	}
	return s.Elected, nil
}

// everyone returns when every session in the state has applied index.
func (l *leadership) everyone(ctx context.Context, n *replica, index uint64) error {
	for {
		missing, poke := l.acks.want(index, func(string, *state.Session) bool { return false })
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-poke:
		case <-time.After(n.timing.Poll()):
		case <-ctx.Done():
			return fmt.Errorf("%s has not heard of it: %w", missing[0], context.Cause(ctx))
		case <-l.ctx.Done():
			return rpc.ErrNotLeader
		}
	}
}

// expel ends a member's session by a verdict, as if it were silent: what it holds is free when its lease is over, and no sooner. No other session of
// it is opened until stop is called.
func (l *leadership) expel(ctx context.Context, n *replica, id string) (stop func(), err error) {
	l.mu.Lock()
	l.expelled[id] = true
	l.mu.Unlock()
	stop = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.expelled, id)
	}
	n.up.wakeLease()
	if _, err = n.store.Wait(ctx, func(s *state.State) bool { return s.Session(id) == nil }); err != nil {
		stop()
	}
	return stop, err
}

// expels reports whether a member is being removed.
func (l *leadership) expels(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expelled[id]
}

// without counts the voters that are left when a node is gone, and those of them that are there. The change is committed by those who stay: without a
// majority of them it would never be, and nothing after it.
func (l *leadership) without(n *replica, gone string) (left, there int) {
	for _, srv := range n.servers() {
		if id := string(srv.ID); srv.Suffrage == raft.Voter && id != gone {
			left++
			if id == n.self.ID || l.acks.there(id) {
				there++
			}
		}
	}
	return left, there
}

// awaitLeading returns this node's leadership. A node that has just been elected is waited for: its first entry is on the way.
func (n *replica) awaitLeading(ctx context.Context) (*leadership, error) {
	ctx, cancel := context.WithTimeout(ctx, n.timing.Lease)
	defer cancel()
	for {
		changed := n.life.Changed.Wait()
		if l := n.leading.Load(); l != nil {
			return l, nil
		}
		if r := n.raft.Load(); r == nil || r.State() != raft.Leader {
			return nil, rpc.ErrNotLeader
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, rpc.ErrNotLeader
		}
	}
}

// waitFuture waits for a future of raft, which knows no contexts, within the bounds of one. The goroutine ends when raft answers
// or ends.
func waitFuture(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
