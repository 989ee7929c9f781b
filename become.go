package flotilla

import (
	"context"
	"errors"
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/hashicorp/raft"
)

// become makes this node a member, for good, and starts raft. With a configuration the cluster is a new one, whose members all begin
// with the same. After an error nothing has come of it, unless the node is a member then.
func (n *membership) become(cluster string, first *raft.Configuration) error {
	err := n.enrol(cluster, first)
	if err != nil {
		return errors.Join(err, n.replica.DropDisk())
	}
	return n.replica.StartRaft()
}

// enrol writes down that this node is a member.
func (n *membership) enrol(cluster string, first *raft.Configuration) error {
	if err := n.replica.OpenDisk(true); err != nil {
		return err
	}
	if first != nil {
		if err := n.replica.Bootstrap(*first); err != nil {
			return fmt.Errorf("forming the cluster: %w", err)
		}
	}
	return n.ident.save(func(id *identity) {
		id.Cluster, id.Name, id.Member = cluster, n.self.Name, true
		id.Formation, id.Void = nil, nil
	})
}

// excuse tells the others that this node's session is over, so that they do not wait for its lease to run out.
func (n *membership) excuse(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	for _, id := range n.replica.Others() {
		n.life.Tasks.Go(func() {
			if _, err := rpc.Call[greeting](ctx, n.replica.Port, id, rpc.Hello, n.greeting()); err != nil {
				n.log.Debug("a peer was not told that this node takes no part", "peer", id, "err", err)
			}
		})
	}
	<-ctx.Done()
}
