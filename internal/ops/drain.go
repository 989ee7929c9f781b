package ops

import (
	"context"
	"errors"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/roles"
)

// serveDrain drains this node, undoes that, or has another node do it.
func (o *Operator) serveDrain(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeDrainRequest(body)
	if err != nil || q.Node == "" {
		return nil, codec.ErrMalformed
	}
	var answer remote.Answer
	switch name := o.cfg.Peers.NameOf(q.Node); {
	case q.Node == o.cfg.Self.ID && q.Undo:
		answer, err = o.undrain()
	case q.Node == o.cfg.Self.ID:
		answer, err = o.cordon(ctx)
	case o.cfg.Replica.IsServer(peer):
		return nil, errors.New("the question is for another node")
	case !o.cfg.Replica.IsServer(q.Node):
		answer, err = refuse("%s is no member", name)
	default:
		reply, err := o.cfg.Replica.Port.Call(ctx, q.Node, remote.CallDrain, body)
		if err == nil {
			return reply, nil
		}
		answer, _ = refuse("%s cannot be asked (%s): is it running, and can %s reach it?", name, unreached(ctx, err), o.cfg.Self.Name)
	}
	if err != nil {
		return nil, err
	}
	return answer.Encode(), nil
}

// cordon makes this node not ready for new clients, so that balancers leave it out, and gives its
// roles up. The node goes on serving. That lasts until undrain or the end of the process.
func (o *Operator) cordon(ctx context.Context) (remote.Answer, error) {
	held := len(o.cfg.Roles.Held((*roles.Tenure).IsRole))
	if !o.cfg.Life.Cordoned.Swap(true) {
		o.cfg.Log.Info("an operator drains this node", "roles", held, "event", event.DrainBegun)
	}
	o.cfg.Life.Changed.Notify()
	o.cfg.Roles.Recheck()
	ctx, stop := o.cfg.Life.WhileOpen(ctx)
	defer stop()
	// undrain may be called while this waits.
	chosen := func(t *roles.Tenure) bool { return o.cfg.Life.Cordoned.Load() && t.IsRole() }
	if err := o.cfg.Roles.YieldAll(ctx, chosen); err != nil {
		return remote.Answer{}, o.cfg.Life.Explain(err)
	}
	if held == 0 {
		return done("%s is drained; it held no roles", o.cfg.Self.Name)
	}
	return done("%s is drained, and has given up its roles (%d)", o.cfg.Self.Name, held)
}

// undrain undoes cordon.
func (o *Operator) undrain() (remote.Answer, error) {
	if o.cfg.Life.Cordoned.Swap(false) {
		o.cfg.Log.Info("an operator has this node take part again", "event", event.DrainEnded)
	}
	o.cfg.Life.Changed.Notify()
	if o.cfg.Life.Drained.Load() || o.cfg.Life.Leaving.Load() {
		return refuse("%s is on its way out by itself, and stays drained", o.cfg.Self.Name)
	}
	return done("%s takes part again", o.cfg.Self.Name)
}
