package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/snapstore"
	"github.com/flotilla-ha/flotilla/internal/history"
	"github.com/flotilla-ha/flotilla/internal/seal"
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
		old, err = isOld(log, last, keys)
		return err
	})
	return err == nil && old
}

// isOld reports whether another data key than the present one has sealed an entry of a log.
func isOld(log *history.Log, index uint64, keys *seal.Keyring) (bool, error) {
	var e raft.Log
	if err := log.GetLog(index, &e); err != nil {
		return false, fmt.Errorf("reading entry %d of the raft log: %w", index, err)
	}
	return e.Type == raft.LogCommand && !state.IsSealedBy(e.Data, keys.ID()), nil
}

// Clean has this node drop what was sealed before the entry since, on its disk and in its log: it
// takes a snapshot, deletes the entries before that, and overwrites what held them. It tries until
// it succeeds, and returns true then. It gives up when ctx ends, or between two attempts when news
// is closed. A follower that lags behind the snapshot gets it.
func (s *Snapshots) Clean(ctx context.Context, since uint64, news <-chan struct{}) (done bool) {
	for reported := false; ; {
		err := s.clean(ctx, since)
		if err == nil {
			return true
		}
		temporary := errors.Is(err, errStillOld) || errors.Is(err, snapstore.ErrInUse)
		if !reported && ctx.Err() == nil && !temporary {
			s.log.Warn("what a former key has sealed is still on the disk; will try again", "err", err)
			reported = true
		}
		select {
		case <-time.After(cleanRetry):
		case <-news:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (s *Snapshots) clean(ctx context.Context, since uint64) error {
	// raft will remove one, and overwrite nothing.
	if s.files.dir != nil && s.files.disk.Load() != nil {
		if err := s.files.dir.PurgeSnapshots(since); err != nil {
			return err
		}
	}
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
	// raft does the same behind each snapshot, and leaves some entries. The snapshot's own entry has
	// to stay. A follower looks for the entry before those that it gets in its log, and not in its
	// snapshot (raft.go, appendEntries): else it would refuse them, and get the snapshot again, for
	// ever.
	hi := max(min(newest, last), 1) - 1
	keys := s.store.State().Keys
	for i := max(hi+1, first); i <= last; i++ {
		if old, err := isOld(log, i, keys); err != nil {
			return err
		} else if old {
			return errStillOld
		}
	}
	for hi > max(first, since) && last-hi < trailFewest { // some more, if they are new enough
		if old, err := isOld(log, hi, keys); err != nil || old {
			break
		}
		hi--
	}
	if first > 0 && first <= hi {
		if err := log.DeletePrefix(hi); err != nil {
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
