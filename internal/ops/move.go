package ops

import (
	"context"
	"errors"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// serveMove has a role handed over. Any node can do that.
func (o *Operator) serveMove(ctx context.Context, _ string, body []byte) ([]byte, error) {
	q, err := remote.DecodeMoveRequest(body)
	if err != nil || q.Role == "" {
		return nil, codec.ErrMalformed
	}
	if !o.cfg.Replica.CaughtUp(ctx, 4) {
		return nil, o.cfg.Life.Explain(errs.ErrNoLeader)
	}
	answer, err := o.moveFor(ctx, q)
	if err != nil {
		return nil, err
	}
	return answer.Encode(), nil
}

// moveFor has a role handed over and says which node holds it then.
func (o *Operator) moveFor(ctx context.Context, q remote.MoveRequest) (remote.Answer, error) {
	holder := func() (state.Claim, bool) {
		queue := o.cfg.Store.State().Claims(keyspace.RolePrefix + q.Role)
		if len(queue) == 0 {
			return state.Claim{}, false
		}
		return queue[0], true
	}
	switch now, held := holder(); {
	case !held:
		return refuse("nobody holds the role %s", q.Role)
	case q.To != "" && now.Node == q.To || q.To == "" && now.Index != q.Fence:
		// An earlier call has done it, and its answer was lost.
		return done("%s holds %s", o.cfg.Peers.NameOf(now.Node), q.Role)
	case now.HoldDown != 0:
		return refuse("%s held %s and is gone; the role goes to another node by itself as soon as that is safe", o.cfg.Peers.NameOf(now.Node), q.Role)
	}
	switch err := o.cfg.Roles.Move(ctx, q.Role, q.To); {
	case errors.Is(err, state.ErrNoTransferee) && q.To == "":
		return refuse("no other node waits for %s", q.Role)
	case errors.Is(err, state.ErrNoTransferee):
		return refuse("%s does not wait for %s, so it cannot have it", o.cfg.Peers.NameOf(q.To), q.Role)
	case errors.Is(err, errs.ErrNoLeader), errors.Is(err, errs.ErrLost), errors.Is(err, errs.ErrClosed):
		return remote.Answer{}, err
	case err != nil:
		return refuse("%s stays where it is: %v", q.Role, err)
	}
	if now, held := holder(); held {
		return done("%s holds %s", o.cfg.Peers.NameOf(now.Node), q.Role)
	}
	return done("%s was given up, and nobody holds it", q.Role)
}
