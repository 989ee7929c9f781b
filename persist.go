package flotilla

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
	snapshotQuiet    = 5 * time.Second  // how long nothing is to change, before a snapshot
	snapshotJitter   = 5 * time.Second  // more, at most: nodes shall not all write at once
	snapshotPatience = 30 * time.Second // how long changes that do not end may put it off
	snapshotRest     = 30 * time.Second // between two, at least
	snapshotRestMiB  = 10 * time.Second // more, for each MiB of the state
	snapshotLimit    = 10 * time.Second // for one; what takes longer is found when the next is due
)

// snapshotSoon has this node take a snapshot when things have calmed down. It does not block.
func (n *replica) snapshotSoon() {
	select {
	case n.snapshots <- struct{}{}:
	default:
	}
}

// keepSnapshots takes the snapshots that snapshotSoon asks for, until ctx is done.
func (n *replica) keepSnapshots(ctx context.Context) {
	for {
		select {
		case <-n.snapshots:
		case <-ctx.Done():
			return
		}
		n.awaitQuiet(ctx)
		rest := snapshotRest + time.Duration(n.store.State().Bytes())*snapshotRestMiB>>20
		if err := n.snapshot(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("no snapshot; will try again", "err", err, "in", rest)
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
func (n *replica) awaitQuiet(ctx context.Context) {
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
func (n *replica) lastSnapshot(ctx context.Context) {
	if err := n.snapshot(ctx); err != nil {
		n.log.Warn("the node leaves no snapshot of its last changes; started alone it would not know them", "err", err)
	}
}

// snapshot writes down what this node has applied, if its newest snapshot does not have it.
func (n *replica) snapshot(ctx context.Context) error {
	r, d := n.raft.Load(), n.disk.Load()
	if n.dir == nil || r == nil || n.life.Works.Err() != nil || n.life.Setback.Load() != nil {
		return nil
	}
	have, err := d.snaps.List()
	if err != nil {
		return fmt.Errorf("looking for snapshots: %w", err)
	}
	want := n.store.State().Index
	if len(have) > 0 && have[0].Index >= want {
		return nil // raft would log an error
	}
	go r.Snapshot() // its future is not waited for, as that of Apply is not: raft does not answer all; this ends with raft
	ctx, stop := n.life.WhileOpen(ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, snapshotLimit)
	defer cancel()
	for {
		written := n.fsm.Written()
		if have, err = d.snaps.List(); err != nil {
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
