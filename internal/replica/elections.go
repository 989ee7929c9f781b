package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/timing"
)

// Elections gives this node the leadership, or hands it over, without raft's own timeouts. Its
// methods are safe for concurrent use.
type Elections struct {
	timing timing.Timing
	log    *slog.Logger
	group  *Group
	leads  *LeaderState

	mu       sync.Mutex
	standing bool // StandFor runs
}

// Transfer hands the leadership to a voter that may lead, is there and has every entry; to is its
// node ID, empty stands for any. It returns nil if this node does not lead. It tries each voter
// once in a term, because a second attempt that times out as the first did would leave raft
// refusing writes for ever (hashicorp/raft#696).
func (e *Elections) Transfer(ctx context.Context, to string) error {
	l := e.leads.Leading.Load()
	if l == nil {
		return nil
	}
	failed := errors.New("no other voter is there and up to date")
	if to != "" {
		failed = errors.New("it is not up to date")
	}
	for {
		for _, srv := range e.group.Servers() {
			if to != "" && string(srv.ID) != to || !e.canTakeOver(l, srv) || !l.offer(srv.ID) {
				continue
			}
			name := e.group.peers.NameOf(string(srv.ID))
			over, err := e.propose(l, srv)
			if err != nil {
				return fmt.Errorf("handing over the leadership to %s: %w", name, err)
			}
			select {
			case <-over:
				if l.Ctx.Err() != nil {
					return nil // nothing is offered in a term that is over
				}
				failed = fmt.Errorf("%s has not taken over within %v", name, e.timing.Offer())
			case <-l.Ctx.Done():
				return nil
			case <-ctx.Done():
				return fmt.Errorf("handing over the leadership: %s has not taken over: %w", name, context.Cause(ctx))
			}
		}
		select {
		case <-time.After(e.timing.Poll()):
		case <-l.Ctx.Done():
			return nil
		case <-ctx.Done():
			return fmt.Errorf("handing over the leadership: %w", failed)
		}
	}
}

// propose has raft offer the leadership to a voter. over is closed when raft is free for another
// offer. raft refuses writes and other offers until the voter has taken over, or its own election
// timeout is over, which is long on a leader. So that is short until then.
func (e *Elections) propose(l *Leadership, to raft.Server) (over <-chan struct{}, err error) {
	unpin, err := l.Raft.pinTimeout(e.timing.Heartbeat)
	if err != nil {
		return nil, err
	}
	// Nobody answers a future that reaches raft as it ends, so it is not waited for.
	l.Raft.LeadershipTransferToServer(to.ID, to.Address)
	free := make(chan struct{})
	e.group.life.Tasks.Go(func() {
		select {
		case <-time.After(e.timing.Offer()):
		case <-l.Ctx.Done():
		}
		if err := unpin(); err != nil {
			e.log.Warn("raft does not take its usual timeout again", "err", err)
		}
		close(free)
	})
	return free, nil
}

// canTakeOver reports whether another node votes, is there to stay, and has every entry.
func (e *Elections) canTakeOver(l *Leadership, srv raft.Server) bool {
	id := string(srv.ID)
	index, _ := e.group.port.Transport().Match(id, l.Term)
	return id != e.group.self.ID && srv.Suffrage == raft.Voter && e.group.store.State().CanLead(id) && !e.group.peers.IsLeaving(id) && l.Acks.There(id) && index >= l.Raft.LastIndex()
}

// StandForDead has this node stand for election if that process of the leader, which is dead, was
// the last of its node to lead. It does not block.
func (e *Elections) StandForDead(id, process string) {
	life := e.group.life
	life.Tasks.Go(func() {
		e.StandFor(life.Works, id, func() bool { return e.group.port.Transport().LedBy(id) == process })
	})
}

// StandFor has this node stand for election in place of the leader, whose process is dead or whose
// lease has expired. It is an ordinary vote, as after a transfer of the leadership. The voters
// stand one after another until one wins, or until reason returns false and that leader still
// leads. It does nothing while another call of it runs: of two requests to stand, raft may get the
// second when the first has won already, and would give the leadership up.
func (e *Elections) StandFor(ctx context.Context, dead string, reason func() bool) {
	if !e.enter() {
		return
	}
	defer e.leave()
	r := e.group.Raft.Load()
	if r == nil || e.group.Leader() != dead || e.group.life.Leaving.Load() {
		return
	}
	var voters []string
	for _, srv := range e.group.Servers() {
		if id := string(srv.ID); srv.Suffrage == raft.Voter && id != dead {
			voters = append(voters, id)
		}
	}
	// Those that must not lead stand last, in case no other voter has all entries.
	s := e.group.store.State()
	slices.SortFunc(voters, func(a, b string) int {
		switch {
		case s.CanLead(a) && !s.CanLead(b):
			return -1
		case s.CanLead(b) && !s.CanLead(a):
			return 1
		}
		return strings.Compare(a, b)
	})
	rank := slices.Index(voters, e.group.self.ID)
	if rank < 0 {
		return
	}
	// The first to stand loses if it lacks entries that the others have, and then the next one
	// stands. Two that stand at once may both lose, and then raft waits for its election timeout. So
	// each looks first whether one before it stands.
	wait, term := time.Duration(rank)*100*time.Millisecond, r.CurrentTerm()
	for range 10 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		switch e.group.Leader() {
		case dead:
			if !reason() {
				return
			}
		case "":
			// A candidate has ended its term, and may have lost. reason may be false by requests of the
			// old leader that come in late.
		default:
			return
		}
		now := r.CurrentTerm()
		for _, id := range voters[:rank] {
			now = max(now, e.termAt(ctx, id))
		}
		if now > term {
			term = now
		} else {
			e.log.Info("standing for election", "in place of", dead)
			e.Stand(ctx)
		}
		wait = 60 * time.Millisecond
	}
}

// enter reports whether no call of StandFor runs, and has leave end this one.
func (e *Elections) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	free := !e.standing
	e.standing = true
	return free
}

func (e *Elections) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.standing = false
}

// termAt returns the term of a node, 0 if it does not answer quickly.
func (e *Elections) termAt(ctx context.Context, id string) uint64 {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	term, err := e.group.TermOf(ctx, id)
	if err != nil {
		return 0
	}
	return term
}

// Stand has raft stand for election at once.
func (e *Elections) Stand(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, e.timing.Lease)
	defer cancel()
	if _, err := e.group.port.Transport().Inject(ctx, &raft.TimeoutNowRequest{RPCHeader: e.group.header()}); err != nil {
		e.log.Debug("standing for election", "err", err)
	}
}
