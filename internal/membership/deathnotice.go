package membership

import (
	"context"
	"errors"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// EndDead ends the session of a process that is dead, and has left nothing to be seen, as the bearer of its will says. The bearer has only that to do, so
// it is seen to here until it is done.
func (n *Membership) EndDead(ctx context.Context, node string, number uint64) error {
	done := func(s *state.State) bool {
		if s.Index < number || s.Number(node) == number {
			return false
		}
		for _, g := range s.InHoldDown() {
			if g.Node == node && g.Session == number && g.ReleasedOnDeath {
				return false
			}
		}
		return true
	}
	ctx, cancel := context.WithTimeoutCause(ctx, replica.WriteTimeout, errs.NoLeader)
	defer cancel()
	ctx, stop := n.Life.WhileOpen(ctx)
	defer stop()
	var last error // of the attempts
	n.Replica.Until(ctx, func(ctx context.Context) error {
		last = n.endDeadOnce(ctx, node, number, done)
		return last
	})
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), last)
	}
	return nil
}

// endDeadOnce has the leader do it.
func (n *Membership) endDeadOnce(ctx context.Context, node string, number uint64, done func(*state.State) bool) error {
	if done(n.Store.State()) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.Replica.AttemptTimeout())
	defer cancel()
	switch leader := n.Replica.Leader(); leader {
	case "":
		return errs.NoLeader
	case n.Self.ID:
		return n.Replica.ChangeSession(ctx, state.Command{Node: n.Self.ID, Change: state.EndByDeathNotice{Node: node, Number: number}}, done)
	default:
		var e codec.Encoder
		e.String(node)
		e.Uint(number)
		_, err := n.Replica.Port.Call(ctx, leader, rpc.DeathNotice, e.B)
		return err
	}
}

// ServeDeathNotice is the leader's end of passOn.
func (n *Membership) ServeDeathNotice(ctx context.Context, _ string, body []byte) ([]byte, error) {
	d := codec.Decoder{B: body}
	node, number := d.String(), d.Uint()
	if err := d.End(); err != nil {
		return nil, err
	}
	return nil, n.EndDead(ctx, node, number)
}
