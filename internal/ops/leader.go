package ops

import (
	"context"
	"fmt"
	"time"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rpc"
)

// leaderCall carries out a request on the leader. An error means that another attempt may
// succeed. An answer, even one that refuses, is final.
type leaderCall[T message] func(context.Context, *replica.Leadership) (T, error)

type message interface{ Encode() []byte }

// toLeader has the leader carry out a request: this node by serve, or another node by a call. It
// tries again for the time of some attempts.
func toLeader[T message](ctx context.Context, o *Operator, peer, path string, body []byte, serve leaderCall[T]) ([]byte, error) {
	if o.cfg.Replica.Raft.Load() == nil {
		return nil, fmt.Errorf("%w: %s", errs.ErrNotReady, o.cfg.Members.WhyNot())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, min(4*o.cfg.Replica.AttemptTimeout(), replica.WriteTimeout), errs.ErrNoLeader)
	defer cancel()
	ctx, stop := o.cfg.Life.WhileOpen(ctx)
	defer stop()
	for {
		changed := o.cfg.Life.Changed.Wait()
		reply, err := toLeaderOnce(ctx, o, peer, path, body, serve)
		if err == nil || o.cfg.Replica.IsServer(peer) {
			return reply, err
		}
		o.cfg.Log.Debug("what an operator asks for has to wait", "call", path, "err", err)
		select {
		case <-changed:
		case <-time.After(o.cfg.Timing.Retry()):
		case <-ctx.Done():
			if o.cfg.Replica.Leader() == "" || o.cfg.Life.Works.Err() != nil {
				err = o.cfg.Life.Explain(errs.ErrNoLeader)
			}
			return nil, err
		}
	}
}

// toLeaderOnce is one attempt of toLeader. A request that a member has passed on is not passed on
// again, because two nodes may each take the other for the leader.
func toLeaderOnce[T message](ctx context.Context, o *Operator, peer, path string, body []byte, serve leaderCall[T]) ([]byte, error) {
	switch leader := o.cfg.Replica.Leader(); {
	case leader == o.cfg.Self.ID:
		l, err := o.cfg.Replica.AwaitLeading(ctx)
		if err != nil {
			return nil, err
		}
		answer, err := serve(ctx, l)
		if err != nil {
			return nil, err
		}
		return answer.Encode(), nil
	case leader == "":
		return nil, errs.ErrNoLeader
	case o.cfg.Replica.IsServer(peer):
		return nil, rpc.ErrNotLeader
	default:
		return o.cfg.Replica.Port.Call(ctx, leader, path, body)
	}
}
