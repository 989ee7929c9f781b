package membership

import (
	"context"
	"errors"
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/hashicorp/raft"
)

// become makes this node a member, for good, and starts raft. With a configuration the cluster is a new one, whose members all begin
// with the same. After an error nothing has come of it, unless the node is a member then.
func (n *Membership) become(cluster string, first *raft.Configuration) error {
	err := n.enrol(cluster, first)
	if err != nil {
		return errors.Join(err, n.Replica.DropDisk())
	}
	return n.Replica.StartRaft()
}

// enrol writes down that this node is a member.
func (n *Membership) enrol(cluster string, first *raft.Configuration) error {
	if err := n.Replica.OpenDisk(true); err != nil {
		return err
	}
	if first != nil {
		if err := n.Replica.Bootstrap(*first); err != nil {
			return fmt.Errorf("forming the cluster: %w", err)
		}
	}
	return n.Ident.Save(func(id *Identity) {
		id.Cluster, id.Name, id.Member = cluster, n.Self.Name, true
		id.Formation, id.Void = nil, nil
	})
}

// AnnounceLoss tells the others that this node's session is over, so that they do not wait for its lease to run out.
func (n *Membership) AnnounceLoss(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	for _, id := range n.Replica.Others() {
		n.Life.Tasks.Go(func() {
			if _, err := rpc.Call[Greeting](ctx, n.Replica.Port, id, rpc.Hello, n.Greeting()); err != nil {
				n.Log.Debug("a peer was not told that this node takes no part", "peer", id, "err", err)
			}
		})
	}
	<-ctx.Done()
}
