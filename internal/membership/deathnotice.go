package membership

import (
	"context"
	"errors"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// EndDead ends the session of a process that is dead and has left nothing that can be seen, by a
// death notice. The bearer of the notice has nothing else to do, so EndDead tries until it
// succeeds, ctx ends, or replica.WriteTimeout has passed.
//
// If the process led the cluster, this node stands for election at once. The kernel may take a
// tenth of a second to close the connections of a dead process, above all one that had floating
// addresses, and until then the port of that process does not refuse either.
func (s *Sessions) EndDead(ctx context.Context, node string, number uint64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, replica.WriteTimeout, errs.ErrNoLeader)
	defer cancel()
	ctx, stop := s.life.WhileOpen(ctx)
	defer stop()
	notice := DeathNotice{Node: node, Number: number}
	s.log.Debug("a death notice has come", "peer", node, "session", number)
	defer s.replica.Deaths.Add(notice.change())()
	if ses := s.store.State().Session(node); ses != nil && ses.Number == number {
		s.replica.StandForDead(node, ses.Incarnation)
	}
	var last error // of the attempts
	s.replica.Until(ctx, func(ctx context.Context) error {
		last = s.endDeadOnce(ctx, notice)
		return last
	})
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), last)
	}
	s.log.Debug("the session of a dead process is over", "peer", node, "session", number)
	return nil
}

// endDeadOnce has the leader end the session, once.
func (s *Sessions) endDeadOnce(ctx context.Context, n DeathNotice) error {
	if n.isDone(s.store.State()) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.replica.AttemptTimeout())
	defer cancel()
	switch leader := s.replica.Leader(); leader {
	case "":
		return errs.ErrNoLeader
	case s.self.ID:
		if _, err := s.replica.AwaitLeading(ctx); err != nil {
			return err
		}
		if n.isDone(s.store.State()) {
			return nil // by the first entries of the term
		}
		return s.replica.ChangeSession(ctx, state.Command{Node: s.self.ID, Change: n.change()}, n.isDone)
	default:
		_, err := s.replica.AskLeader(ctx, rpc.DeathNotice, n.Encode(), func(context.Context, string, []byte) ([]byte, error) {
			return nil, rpc.ErrNotLeader // this node leads by now: once more
		})
		return err
	}
}

// change returns the command that ends the session.
func (n DeathNotice) change() state.EndByDeathNotice {
	return state.EndByDeathNotice{Node: n.Node, Number: n.Number}
}

// isDone reports whether the session is over in a state, and none of its roles that are released on
// death is in hold-down.
func (n DeathNotice) isDone(s *state.State) bool {
	if s.Index < n.Number || s.Number(n.Node) == n.Number {
		return false
	}
	for _, c := range s.InHoldDown() {
		if c.Node == n.Node && c.Session == n.Number && c.ReleasedOnDeath {
			return false
		}
	}
	return true
}

// serveDeathNotice takes a death notice as a leader.
func (s *Sessions) serveDeathNotice(ctx context.Context, _ string, in DeathNotice) (rpc.Empty, error) {
	return rpc.Empty{}, s.EndDead(ctx, in.Node, in.Number)
}
