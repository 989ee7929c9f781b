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
func (s *Sessions) EndDead(ctx context.Context, node string, number uint64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, replica.WriteTimeout, errs.ErrNoLeader)
	defer cancel()
	ctx, stop := s.life.WhileOpen(ctx)
	defer stop()
	notice := DeathNotice{Node: node, Number: number}
	var last error // of the attempts
	s.replica.Until(ctx, func(ctx context.Context) error {
		last = s.endDeadOnce(ctx, notice)
		return last
	})
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), last)
	}
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
		end := state.EndByDeathNotice{Node: n.Node, Number: n.Number}
		return s.replica.ChangeSession(ctx, state.Command{Node: s.self.ID, Change: end}, n.isDone)
	default:
		_, err := rpc.Call(ctx, s.replica.Port, leader, rpc.DeathNotice, n, rpc.DecodeEmpty)
		return err
	}
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
