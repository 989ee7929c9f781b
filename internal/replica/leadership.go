package replica

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// Leadership is one term of this node as leader. Its methods are safe for concurrent use.
type Leadership struct {
	Ctx   context.Context // ends with the term
	Raft  *Instance
	Term  uint64
	Since time.Time // when the term began
	Acks  *Acks     // what the other members have applied

	stop      context.CancelFunc // ends Ctx
	timing    timing.Timing
	group     *Group
	store     *applied.Store
	wakeLease func()
	beats     chan struct{} // holds an element when heartbeats are due
	beaten    atomic.Int64  // when they last were, in nanoseconds since Since

	mu       sync.Mutex
	offered  map[raft.ServerID]bool // peers that the leadership was offered to
	expelled map[string]bool        // members that are being removed although they are present
	stable   uint64                 // the last configuration that every session has applied
	stableAt time.Time              // and since when
}

// Beat says that requests for this node's lease were sent, so that heartbeats can go along with
// them. One goroutine at a time calls it. It does not block.
func (l *Leadership) Beat() {
	now := time.Since(l.Since)
	if now-time.Duration(l.beaten.Load()) < l.timing.Beat()-l.timing.Renewal()/2 {
		return
	}
	l.beaten.Store(int64(now))
	select {
	case l.beats <- struct{}{}:
	default:
	}
}

// AwaitStable returns when another voter may come or go. The caller's change must be of the
// configuration whose index it returns.
//
// The majorities before and after one change of the voters always intersect, but those that are two
// changes apart need not. A lease and the evaluation that it is over must not come from two such
// majorities. So every session must have applied the last change, and the grants that were counted
// before that must have expired.
func (l *Leadership) AwaitStable(ctx context.Context) (uint64, error) {
	s := l.store.State()
	if err := l.AwaitApplied(ctx, s.Elected); err != nil {
		return 0, fmt.Errorf("the last change of the voters: %w", err)
	}
	l.mu.Lock()
	if l.stable != s.Elected {
		l.stable, l.stableAt = s.Elected, time.Now()
	}
	at := l.stableAt
	l.mu.Unlock()
	ctx, stop := l.whileLeading(ctx)
	defer stop()
	select {
	case <-time.After(time.Until(at.Add(l.timing.Grant()))):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	return s.Elected, nil
}

// whileLeading returns a context that ends with ctx, with the term or by stop. After the term its
// cause is rpc.ErrNotLeader.
func (l *Leadership) whileLeading(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	detach := context.AfterFunc(l.Ctx, func() { cancel(rpc.ErrNotLeader) })
	return ctx, func() {
		detach()
		cancel(nil)
	}
}

// AwaitApplied returns when every session in the state has applied index.
func (l *Leadership) AwaitApplied(ctx context.Context, index uint64) error {
	ctx, stop := l.whileLeading(ctx)
	defer stop()
	var missing []string
	err := notify.Loop(ctx, func() (time.Time, bool) {
		missing = l.Acks.want(index, func(string, *state.Session) bool { return false })
		return time.Now().Add(l.timing.Poll()), len(missing) == 0
	}, &l.Acks.progress)
	if err != nil {
		return fmt.Errorf("%s has not heard of it: %w", missing[0], err)
	}
	return nil
}

// Apply proposes an entry of the leader's own, which belongs to no session and may be repeated. It
// waits until done is true of the state. If the term ends first, the error is rpc.ErrNotLeader; the
// next leader may still commit the entry.
func (l *Leadership) Apply(ctx context.Context, entry []byte, done func(*state.State) bool) error {
	ctx, cancel := context.WithTimeout(ctx, l.timing.Attempt())
	defer cancel()
	ctx, stop := l.whileLeading(ctx)
	defer stop()
	l.Raft.Apply(entry, l.timing.Attempt())
	_, err := l.store.Wait(ctx, done)
	return err
}

// ApplyCommand is Apply for a command. A *state.VersionError says that it cannot be proposed in
// this cluster yet.
func (l *Leadership) ApplyCommand(ctx context.Context, c *state.Command, done func(*state.State) bool) error {
	s := l.store.State()
	if err := s.Admits(c.Change); err != nil {
		return err
	}
	return l.Apply(ctx, state.SealCommand(s.Keys, c), done)
}

// ApplyAndNotify is ApplyCommand for a command that other nodes wait for. They are told of the
// commit at once, also if ctx has ended by then.
func (l *Leadership) ApplyAndNotify(ctx context.Context, c *state.Command, done func(*state.State) bool) error {
	err := l.ApplyCommand(ctx, c, done)
	if err == nil {
		l.Acks.want(l.store.State().Index, l.Acks.Gone)
	} else {
		l.tellLater(done)
	}
	return err
}

// tellLater has the other members told when done is true of the state. It is for an entry whose
// proposer gives up before the commit: raft would tell them with the next entry, or seconds later.
func (l *Leadership) tellLater(done func(*state.State) bool) {
	l.group.life.Tasks.Go(func() {
		ctx, cancel := context.WithTimeout(l.Ctx, l.timing.Attempt())
		defer cancel()
		if s, err := l.store.Wait(ctx, done); err == nil {
			l.Acks.want(s.Index, l.Acks.Gone)
		}
	})
}

// AwaitChange waits for a change of raft's configuration. Then the other members are told of the
// commit at once, also if ctx has ended by then: raft would tell them with the next entry, which
// may be hours later.
func (l *Leadership) AwaitChange(ctx context.Context, f raft.IndexFuture) error {
	return WaitFuture(ctx, telling{f, l.Acks})
}

// telling is a future that has the other members told of the commit before it is over.
type telling struct {
	raft.IndexFuture
	acks *Acks
}

func (f telling) Error() error {
	err := f.IndexFuture.Error()
	if err == nil {
		f.acks.want(f.Index(), f.acks.Gone)
	}
	return err
}

// Expel ends the session of a member that is being removed as if the member were silent: what the
// session holds is free when its lease is over, and no sooner. No other session of the member is
// opened until stop is called. After an error stop has been called.
func (l *Leadership) Expel(ctx context.Context, id string) (stop func(), err error) {
	l.mu.Lock()
	l.expelled[id] = true
	l.mu.Unlock()
	stop = func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.expelled, id)
	}
	l.wakeLease()
	ctx, detach := l.whileLeading(ctx)
	defer detach()
	if _, err = l.store.Wait(ctx, func(s *state.State) bool { return s.Session(id) == nil }); err != nil {
		stop()
	}
	return stop, err
}

// Expels reports whether a member is being removed.
func (l *Leadership) Expels(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expelled[id]
}

// Without counts the voters that are left when a node is gone, and how many of those are there. The
// removal is committed by those who stay. Without a majority of them it would never be committed,
// and nothing after it.
func (l *Leadership) Without(gone string) (left, there int) {
	for _, srv := range l.group.Servers() {
		if id := string(srv.ID); srv.Suffrage == raft.Voter && id != gone {
			left++
			if id == l.group.self.ID || l.Acks.There(id) {
				there++
			}
		}
	}
	return left, there
}

// offer reports whether the leadership was not offered to id in this term yet, and notes that it is
// now.
func (l *Leadership) offer(id raft.ServerID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.offered[id] {
		return false
	}
	l.offered[id] = true
	return true
}

// HasOffered reports whether the leadership was offered to anybody in this term.
func (l *Leadership) HasOffered() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.offered) > 0
}

// Offered reports whether the leadership was offered to id in this term.
func (l *Leadership) Offered(id raft.ServerID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.offered[id]
}
