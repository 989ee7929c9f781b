package durable

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/snapstore"
)

// OpenSnapshots opens the directory of snapshots; log is the open log beside it. Damage of the
// newest snapshot is a [DamagedError], see package snapstore. A log that does not fit the newest
// snapshot is discarded if the snapshot is newer (see [GuardSnapshots]). It is a DamagedError if
// entries are missing between the two.
func (d *Dir) OpenSnapshots(log *Log, logger *slog.Logger) (raft.SnapshotStore, error) {
	logger = orDiscard(logger)
	s, newest, err := snapstore.Open(d.path, &d.places, logger)
	if err != nil {
		return nil, err
	}
	if err := log.Run(func() error { return fit(log, newest, logger) }); err != nil {
		return nil, err
	}
	d.snaps.Store(s)
	return snapstore.Guard(s, log), nil
}

// fit makes the log fit the newest snapshot, nil if there is none. raft is not running yet, so a
// log that does not fit is discarded as a whole.
func fit(log *Log, newest *raft.SnapshotMeta, logger *slog.Logger) error {
	var index, term uint64
	if newest != nil {
		index, term = newest.Index, newest.Term
	}
	if base := log.Base(); base > index {
		return &DamagedError{Path: log.Path(), Reason: fmt.Sprintf(
			"it begins behind entry %d, and the newest snapshot ends with entry %d", base, index)}
	}
	if newest == nil {
		return nil
	}
	ok, first, last, err := snapstore.Fits(log, index, term)
	if err != nil || ok {
		return err
	}
	logger.Warn("discarding a raft log that conflicts with the newest snapshot",
		"first", first, "last", last, "snapshot", index)
	return log.DeleteRange(first, last)
}

// GuardSnapshots returns a store that makes the log fit each snapshot that is finished in it, see
// snapstore.Guard.
func GuardSnapshots(s raft.SnapshotStore, logs raft.LogStore) raft.SnapshotStore {
	return snapstore.Guard(s, logs)
}

// SnapshotTaken returns when the newest snapshot was begun, by the wall clock of this node. It is
// zero if there is none, or none were opened yet. It does not look at the disk.
func (d *Dir) SnapshotTaken() time.Time {
	if s := d.snaps.Load(); s != nil {
		return s.Taken()
	}
	return time.Time{}
}

// PurgeSnapshots overwrites and removes the snapshots that end before an index. The newest one
// stays in any case. The snapshots must be open. They may be in use: the error wraps
// snapstore.ErrInUse if one of those is being read.
func (d *Dir) PurgeSnapshots(before uint64) error {
	s := d.snaps.Load()
	if s == nil {
		return errors.New("remove old snapshots: none are open")
	}
	if err := s.Purge(before); err != nil {
		return fmt.Errorf("remove old snapshots: %w", err)
	}
	return nil
}
