package ops

import (
	"context"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/upgrade"
)

// serveUpgrade raises the cluster version, on the leader. A leader of an older program does not
// know the request. It is in the way itself, so the node that was asked can answer.
func (o *Operator) serveUpgrade(ctx context.Context, peer string, body []byte) ([]byte, error) {
	if _, err := remote.DecodeUpgradeRequest(body); err != nil {
		return nil, codec.ErrMalformed
	}
	v := o.cfg.Version.View()
	if supports, _ := v.Of(o.cfg.Replica.Leader()); supports == v.Version && v.Newest() > v.Version {
		return upgraded(v).Encode(), nil
	}
	return toLeader(ctx, o, peer, remote.CallUpgrade, body, func(ctx context.Context, _ *replica.Leadership) (remote.Answer, error) {
		v, err := o.cfg.Version.Raise(ctx)
		return upgraded(v), err
	})
}

// upgraded says how far the cluster is.
func upgraded(v upgrade.View) remote.Answer {
	a := remote.Answer{Text: "the cluster has " + v.Text(time.Now())}
	if len(v.Blocked()) > 0 && v.Newest() > v.Version {
		a.Refused = true
		a.Text += ". Upgrade the program of a node that supports less; start a node that is away, or remove it (flotilla members remove); then repeat the command"
	}
	return a
}
