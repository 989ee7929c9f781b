package replica

import (
	"errors"
	"io/fs"
	"log/slog"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/errs"
)

// Disk is where raft keeps what it must not forget: the log, the vote and the snapshots. It is a
// directory's files, or memory.
type Disk struct {
	logs   raft.LogStore
	stable raft.StableStore
	snaps  raft.SnapshotStore
	log    *durable.Log             // what logs and stable are; nil: they are in memory
	busy   func() time.Duration     // how long the write under way has taken so far
	failed func() error             // what ended the log; nil: it works
	run    func(func() error) error // calls a function that uses the log, and returns the log's error
	close  func() error
	mark   durable.Mark // what the last process had applied
}

// Close closes the files. Raft must have ended.
func (d *Disk) Close() error { return d.close() }

// LockDir locks the node's directory. Errors are of type *errs.ConfigError.
func LockDir(path string) (*durable.Dir, error) {
	dir, err := durable.Lock(path)
	var inUse *durable.InUseError
	switch {
	case err == nil:
		return dir, nil
	case errors.As(err, &inUse):
		return nil, &errs.ConfigError{Field: "Dir", Reason: path + " is in use by another process; stop it, or give this one a directory of its own", Err: err}
	case errors.Is(err, syscall.ENOSPC):
		return nil, &errs.ConfigError{Field: "Dir", Reason: "there is no room in " + path + "; make some", Err: err}
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return nil, &errs.ConfigError{Field: "Dir", Reason: "this process may not write to " + path + "; change its owner or its mode", Err: err}
	}
	return nil, &errs.ConfigError{Field: "Dir", Reason: "cannot be used", Err: err}
}

// DiskOptions say how a node's disk is opened.
type DiskOptions struct {
	Create bool           // the files are new; otherwise they must exist
	Failed func(error)    // called on a goroutine of its own when the log has ended
	Faults durable.Faults // of the disk, for tests
	Log    *slog.Logger
}

// OpenDisk opens the log and the snapshots in dir, or in memory if dir is nil. Errors of files that
// cannot be used are of type *errs.ConfigError.
func OpenDisk(dir *durable.Dir, o DiskOptions) (*Disk, error) {
	if dir == nil {
		return openMemory(), nil
	}
	if o.Create && dir.HasLog() {
		// It is of a start that was given up: nobody was ever told of an entry of it.
		if err := dir.RemoveState(); err != nil {
			return nil, err
		}
	}
	log, err := dir.OpenLog(durable.LogOptions{Create: o.Create, Failed: o.Failed, Faults: o.Faults, Logger: o.Log})
	if err != nil {
		return nil, &errs.ConfigError{Field: "Dir", Reason: "the raft log cannot be used", Err: err}
	}
	snaps, err := dir.OpenSnapshots(log, o.Log)
	if err != nil {
		return nil, errors.Join(&errs.ConfigError{Field: "Dir", Reason: "the snapshots cannot be used", Err: err}, log.Close())
	}
	return &Disk{logs: log, stable: log, snaps: snaps, log: log, busy: log.Busy, failed: log.Err, run: log.Run, close: log.Close, mark: dir.ReadMark()}, nil
}

// openMemory returns the disk of a node without a directory.
func openMemory() *Disk {
	store := raft.NewInmemStore()
	return &Disk{
		logs: store, stable: store, snaps: durable.GuardSnapshots(raft.NewInmemSnapshotStore(), store),
		busy:   func() time.Duration { return 0 },
		failed: func() error { return nil },
		run:    func(f func() error) error { return f() },
		close:  func() error { return nil },
	}
}

// lastIndex returns the newest entry on the disk.
func (d *Disk) lastIndex() (last uint64, err error) {
	err = d.run(func() error {
		if last, err = d.logs.LastIndex(); err != nil {
			return err
		}
		newest, err := d.newestSnapshot()
		last = max(last, newest)
		return err
	})
	return last, err
}

// newestSnapshot returns the index of the newest snapshot, 0 if there is none.
func (d *Disk) newestSnapshot() (uint64, error) {
	snaps, err := d.snaps.List()
	if err != nil || len(snaps) == 0 {
		return 0, err
	}
	return snaps[0].Index, nil
}
