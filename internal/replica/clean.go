package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/history"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// cleanRetry is how soon a node looks again whether it can drop what an old key has sealed.
const cleanRetry = 100 * time.Millisecond

// errStillOld says that the log has entries that were sealed with a former key.
var errStillOld = errors.New("the log ends with entries that were sealed with a former key")

// Cleaned returns what SetCleaned was called with, 0 if it was not.
func (s *Snapshots) Cleaned() uint64 { return s.cleaned.Load() }

// SetCleaned records that Clean has succeeded up to the entry since, and all else is done too that
// this node may be asked for.
func (s *Snapshots) SetCleaned(since uint64) { s.cleaned.Store(since) }

// IsLastOld reports whether the newest entry of this node's log was sealed with a former data key,
// so that no node can drop it before another entry follows.
func (s *Snapshots) IsLastOld() bool {
	d, log, keys := s.files.disk.Load(), s.chain.current.Load(), s.store.State().Keys
	if d == nil || log == nil || keys == nil {
		return false
	}
	old := false
	err := d.run(func() error {
		last, err := log.LastIndex()
		if err != nil || last == 0 {
			return err
		}
		var e raft.Log
		if err := log.GetLog(last, &e); err != nil {
			return err
		}
		old = e.Type == raft.LogCommand && !state.IsSealedBy(e.Data, keys.ID())
		return nil
	})
	return err == nil && old
}

// Clean returns when this node has nothing that was sealed before the entry since, on its disk or
// in its log: it takes a snapshot, deletes all entries that the snapshot has, and overwrites what
// held them. It tries until it succeeds or ctx ends. A follower that lags behind the snapshot gets
// it.
func (s *Snapshots) Clean(ctx context.Context, since uint64) error {
	for reported := false; ; {
		err := s.clean(ctx, since)
		if err == nil {
			return nil
		}
		if !reported && ctx.Err() == nil && !errors.Is(err, errStillOld) {
			s.log.Warn("what a former key has sealed is still on the disk; will try again", "err", err)
			reported = true
		}
		select {
		case <-time.After(cleanRetry):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Snapshots) clean(ctx context.Context, since uint64) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	d, log := s.files.disk.Load(), s.chain.current.Load()
	newest, err := s.Newest()
	if err != nil {
		return err
	}
	if d == nil || log == nil || newest < since {
		return errors.New("there is no snapshot that is new enough")
	}
	return d.run(func() error { return s.drop(d, log, newest, since) })
}

// drop drops what the snapshot of the entry newest has, and the snapshots before the entry since.
func (s *Snapshots) drop(d *Disk, log *history.Log, newest, since uint64) error {
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := log.LastIndex()
	if err != nil {
		return err
	}
	// raft does the same behind each snapshot, and leaves some entries for followers that lag. The
	// last entry stays: a log without any knows no checksum of what was before.
	hi := min(newest, last-1)
	if first == 0 {
		hi = last
	}
	keys := s.store.State().Keys
	for i := hi + 1; i <= last; i++ {
		var e raft.Log
		if err := log.GetLog(i, &e); err != nil {
			return fmt.Errorf("reading entry %d of the raft log: %w", i, err)
		}
		if e.Type == raft.LogCommand && !state.IsSealedBy(e.Data, keys.ID()) {
			return errStillOld
		}
	}
	if first > 0 && first <= hi {
		if err := log.DeleteRange(first, hi); err != nil {
			return err
		}
	}
	if s.files.dir == nil {
		return nil
	}
	if err := s.files.dir.PurgeSnapshots(since); err != nil {
		return err
	}
	return d.log.Purge()
}
