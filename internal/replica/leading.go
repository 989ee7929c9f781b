package replica

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// LeaderState says whether this node leads. Its methods are safe for concurrent use.
type LeaderState struct {
	// Leading is nil unless this node leads and has applied an entry of its term. Only this package
	// stores it.
	Leading atomic.Pointer[Leadership]

	timing timing.Timing
	group  *Group
}

// AwaitLeading returns this node's leadership. If the node has just been elected it waits until its
// first entry is applied, at most for a lease. The error is rpc.ErrNotLeader.
func (s *LeaderState) AwaitLeading(ctx context.Context) (*Leadership, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timing.Lease)
	defer cancel()
	var l *Leadership
	err := notify.Until(ctx, func() bool {
		l = s.Leading.Load()
		r := s.group.Raft.Load()
		return l != nil || r == nil || r.State() != raft.Leader
	}, &s.group.life.Changed)
	if err != nil || l == nil {
		return nil, rpc.ErrNotLeader
	}
	return l, nil
}

// ChangeSession proposes a command about a session if this node leads, and waits until done is true
// of the state.
func (s *LeaderState) ChangeSession(ctx context.Context, c state.Command, done func(*state.State) bool) error {
	l, err := s.AwaitLeading(ctx)
	if err != nil {
		return err
	}
	c.Time = time.Now().UnixNano()
	return l.ApplyAndNotify(ctx, &c, done)
}

// StoredBy returns the newest committed entry that a process of a node is known to have had on its
// disk. The process is named by its incarnation.
func (s *LeaderState) StoredBy(id, incarnation string) uint64 {
	if s.group.Raft.Load() == nil {
		return 0
	}
	now, transport := s.group.store.State(), s.group.port.Transport()
	stored := max(now.Stored(id), min(transport.Committed(id, incarnation), now.Index))
	if l := s.Leading.Load(); l != nil {
		confirmed := transport.Confirmed(id, incarnation, l.Term)
		stored = max(stored, min(confirmed, l.Raft.CommitIndex()))
	}
	return stored
}
