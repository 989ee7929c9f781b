package flotilla

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// become makes this node a member, for good, and starts raft. With a configuration the cluster is a new one, whose members all begin
// with the same. After an error nothing has come of it, unless the node is a member then.
func (n *Node) become(cluster string, first *raft.Configuration) error {
	err := n.enrol(cluster, first)
	if err != nil {
		return errors.Join(err, n.dropDisk())
	}
	return n.startRaft()
}

// enrol writes down that this node is a member.
func (n *Node) enrol(cluster string, first *raft.Configuration) error {
	if err := n.openDisk(true); err != nil {
		return err
	}
	if first != nil {
		if err := n.bootstrap(*first); err != nil {
			return fmt.Errorf("forming the cluster: %w", err)
		}
	}
	return n.save(func(id *identity) {
		id.Cluster, id.Name, id.Member = cluster, n.name, true
		id.Formation, id.Void = nil, nil
	})
}

// excuse tells the others that this node's session is over, so that they do not wait for its lease to run out.
func (n *Node) excuse(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	for _, id := range n.others() {
		n.tasks.Go(func() {
			if _, err := call[greeting](ctx, n.port, id, callHello, n.greeting()); err != nil {
				n.log.Debug("a peer was not told that this node takes no part", "peer", id, "err", err)
			}
		})
	}
	<-ctx.Done()
}

// isMember reports whether this node is a member of a cluster, by its identity.
func (n *Node) isMember() bool { return n.identity().Member }

// rewrite writes the node's identity once more.
func (n *Node) rewrite() error { return n.save(func(*identity) {}) }
