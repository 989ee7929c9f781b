package ops

import (
	"context"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/rotation"
)

// serveRotate takes the next step of a replacement, on the leader.
func (o *Operator) serveRotate(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeRotateRequest(body)
	if err != nil {
		return nil, codec.ErrMalformed
	}
	var next func(context.Context) (rotation.Progress, error)
	switch q.What {
	case remote.RotateSecret:
		next = func(ctx context.Context) (rotation.Progress, error) { return o.cfg.Rotation.Secret(ctx, q.Have) }
	case remote.RotateData:
		next = func(ctx context.Context) (rotation.Progress, error) { return o.cfg.Rotation.Data(ctx, q.Begun) }
	case remote.RotateTickets:
		return o.rotateTickets(ctx)
	default:
		return nil, codec.ErrMalformed
	}
	return toLeader(ctx, o, peer, remote.CallRotate, body, func(ctx context.Context, _ *replica.Leadership) (remote.RotateReply, error) {
		p, err := next(ctx)
		return remote.RotateReply(p), err
	})
}

// rotateTickets makes all tickets worthless. Any node can do that.
func (o *Operator) rotateTickets(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 4*o.cfg.Replica.AttemptTimeout(), errs.ErrNoLeader)
	defer cancel()
	if err := o.cfg.Up.DropTickets(ctx); err != nil {
		return nil, o.cfg.Life.Explain(err)
	}
	o.cfg.Log.Info("an operator has made all session tickets worthless")
	return remote.RotateReply{Done: true, Step: 1, Steps: 1, Doing: "all session tickets are worthless, and new keys are made"}.Encode(), nil
}

// serveEvict takes the next step of an eviction, on the leader.
func (o *Operator) serveEvict(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeEvictRequest(body)
	if err != nil || q.Node == "" {
		return nil, codec.ErrMalformed
	}
	return toLeader(ctx, o, peer, remote.CallEvict, body, func(ctx context.Context, l *replica.Leadership) (remote.EvictReply, error) {
		p, err := o.cfg.Rotation.Evict(ctx, l, q.Node, q.Have)
		return remote.EvictReply{RotateReply: remote.RotateReply(p.Progress), Notes: p.Notes}, err
	})
}
