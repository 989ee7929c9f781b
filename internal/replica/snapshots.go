package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// When a node takes a snapshot. raft does not write down how far its log is committed, so a node that is started alone, as after
// a power cut that only one machine has survived, knows no more than its newest snapshot. raft by itself takes one after some
// thousand entries, which a cluster of a few certificates does not see in a year. So there is one soon after a change that a node
// cannot serve without, or must not forget, and one at the end.

const (
	SnapshotQuiet    = 5 * time.Second  // how long nothing is to change, before a snapshot
	SnapshotJitter   = 5 * time.Second  // more, at most: nodes shall not all write at once
	snapshotPatience = 30 * time.Second // how long changes that do not end may put it off
	snapshotRest     = 30 * time.Second // between two, at least
	snapshotRestMiB  = 10 * time.Second // more, for each MiB of the state
	snapshotLimit    = 10 * time.Second // for one; what takes longer is found when the next is due
)

// SnapshotSoon has this node take a snapshot when things have calmed down. It does not block.
func (n *Replica) SnapshotSoon() {
	select {
	case n.snapshots <- struct{}{}:
	default:
	}
}

// KeepSnapshots takes the snapshots that snapshotSoon asks for, until ctx is done.
func (n *Replica) KeepSnapshots(ctx context.Context) {
	for {
		select {
		case <-n.snapshots:
		case <-ctx.Done():
			return
		}
		n.awaitQuiet(ctx)
		rest := snapshotRest + time.Duration(n.Store.State().Bytes())*snapshotRestMiB>>20
		if err := n.Snapshot(ctx); err != nil && ctx.Err() == nil {
			n.Log.Warn("no snapshot; will try again", "err", err, "in", rest)
			n.SnapshotSoon()
		}
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return
		}
	}
}

// awaitQuiet returns when snapshotSoon has not been called for a while, or for too long called too often.
func (n *Replica) awaitQuiet(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, snapshotPatience)
	defer cancel()
	quiet := SnapshotQuiet + rand.N(SnapshotJitter)
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

// LastSnapshot is for a node that shuts down. One that fails is no reason not to.
func (n *Replica) LastSnapshot(ctx context.Context) {
	if err := n.Snapshot(ctx); err != nil {
		n.Log.Warn("the node leaves no snapshot of its last changes; started alone it would not know them", "err", err)
	}
}

// Snapshot writes down what this node has applied, if its newest snapshot does not have it.
func (n *Replica) Snapshot(ctx context.Context) error {
	r, d := n.Raft.Load(), n.Disk.Load()
	if n.Dir == nil || r == nil || n.Life.Works.Err() != nil || n.Life.Setback.Load() != nil {
		return nil
	}
	have, err := d.Snaps.List()
	if err != nil {
		return fmt.Errorf("looking for snapshots: %w", err)
	}
	want := n.Store.State().Index
	if len(have) > 0 && have[0].Index >= want {
		return nil // raft would log an error
	}
	go r.Snapshot() // its future is not waited for, as that of Apply is not: raft does not answer all; this ends with raft
	ctx, stop := n.Life.WhileOpen(ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, snapshotLimit)
	defer cancel()
	for {
		written := n.FSM.Written()
		if have, err = d.Snaps.List(); err != nil {
			return fmt.Errorf("looking for the snapshot: %w", err)
		}
		if len(have) > 0 && have[0].Index >= want {
			return nil
		}
		select {
		case <-written:
		case <-ctx.Done():
			return fmt.Errorf("waiting for a snapshot: %w", context.Cause(ctx))
		}
	}
}
