package flotilla

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"
)

// When a node takes a snapshot. raft does not write down how far its log is committed, so a node that is started alone, as after
// a power cut that only one machine has survived, knows no more than its newest snapshot. raft by itself takes one after some
// thousand entries, which a cluster of a few certificates does not see in a year. So there is one soon after a change that a node
// cannot serve without, and one at the end.

const (
	snapshotQuiet    = 5 * time.Second  // how long nothing is to change, before a snapshot
	snapshotJitter   = 5 * time.Second  // more, at most: nodes shall not all write at once
	snapshotPatience = 30 * time.Second // how long changes that do not end may put it off
	snapshotRest     = 30 * time.Second // between two, at least
	snapshotRestMiB  = 10 * time.Second // more, for each MiB of the state
	snapshotEnd      = 10 * time.Second // for the last one
)

// snapshotSoon has this node take a snapshot when things have calmed down. It does not block.
func (n *Node) snapshotSoon() {
	select {
	case n.snapshots <- struct{}{}:
	default:
	}
}

// keepSnapshots takes the snapshots that snapshotSoon asks for, until ctx is done.
func (n *Node) keepSnapshots(ctx context.Context) {
	for {
		select {
		case <-n.snapshots:
		case <-ctx.Done():
			return
		}
		n.awaitQuiet(ctx)
		rest := snapshotRest + time.Duration(n.fsm.state().bytes)*snapshotRestMiB>>20
		if err := n.snapshot(ctx); err != nil && ctx.Err() == nil {
			n.log.Debug("no snapshot; will try again", "err", err, "in", rest)
			n.snapshotSoon()
		}
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return
		}
	}
}

// awaitQuiet returns when snapshotSoon has not been called for a while, or for too long called too often.
func (n *Node) awaitQuiet(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, snapshotPatience)
	defer cancel()
	quiet := snapshotQuiet + rand.N(snapshotJitter)
	for {
		select {
		case <-n.snapshots:
		case <-time.After(quiet):
			return
		case <-ctx.Done():
			return
		}
	}
}

// lastSnapshot is for a node that shuts down. One that fails is no reason not to.
func (n *Node) lastSnapshot(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, snapshotEnd)
	defer cancel()
	if err := n.snapshot(ctx); err != nil {
		n.log.Warn("the node leaves no snapshot of its last changes; started alone it would not know them", "err", err)
	}
}

// snapshot writes down what this node has applied, if its newest snapshot does not have it.
func (n *Node) snapshot(ctx context.Context) error {
	r, d := n.raft.Load(), n.disk.Load()
	if n.dir == nil || r == nil || n.works.Err() != nil {
		return nil
	}
	have, err := d.snaps.List()
	if err != nil {
		return fmt.Errorf("looking for snapshots: %w", err)
	}
	if len(have) > 0 && have[0].Index >= n.fsm.state().index {
		return nil // raft would log an error
	}
	if err := waitFuture(ctx, r.Snapshot()); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return fmt.Errorf("taking a snapshot: %w", err)
	}
	return nil
}
