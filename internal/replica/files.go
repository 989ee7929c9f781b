package replica

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/errs"
)

// Hanging is how long a write to the disk takes before the disk counts as hanging.
const Hanging = time.Second

// files holds the disk that is open now.
type files struct {
	dir    *durable.Dir // nil: in memory
	failed func(error)  // see DiskOptions
	faults durable.Faults
	log    *slog.Logger
	disk   atomic.Pointer[Disk] // nil: none is open
}

// open opens the disk. Its files must exist unless create is true.
func (f *files) open(create bool) error {
	d, err := OpenDisk(f.dir, DiskOptions{Create: create, Failed: f.failed, Faults: f.faults, Log: f.log})
	if err != nil {
		return err
	}
	f.disk.Store(d)
	return nil
}

// drop closes the disk, on which raft was not started.
func (f *files) drop() error {
	if d := f.disk.Swap(nil); d != nil {
		return d.Close()
	}
	return nil
}

// stalled reports whether the disk hangs.
func (f *files) stalled() bool {
	d := f.disk.Load()
	return d != nil && d.busy() > Hanging
}

// durable returns nil, nil if the entries up to index are on the disk. Otherwise it returns a
// channel that is closed when that may have changed, or why they never will be.
func (f *files) durable(index uint64) (<-chan struct{}, error) {
	if d := f.disk.Load(); d != nil && d.log != nil {
		return d.log.Durable(index)
	}
	return nil, nil
}

// voted is like durable, for this node's vote in a term.
func (f *files) voted(term uint64) (<-chan struct{}, error) {
	if d := f.disk.Load(); d != nil && d.log != nil {
		return d.log.Voted(term)
	}
	return nil, nil
}

// lastIndex returns the newest entry on the disk, 0 if none is open.
func (f *files) lastIndex() uint64 {
	d := f.disk.Load()
	if d == nil {
		return 0
	}
	last, err := d.lastIndex()
	if err != nil {
		f.log.Warn("the end of the raft log cannot be read", "err", err)
	}
	return last
}

// marked returns the newest entry that the last process had applied, 0 if that is not known.
func (f *files) marked() uint64 {
	if d := f.disk.Load(); d != nil {
		return d.mark.Index
	}
	return 0
}

// makePrivate hides the node's files from other users of this machine.
func (f *files) makePrivate() error {
	if f.dir == nil {
		return nil
	}
	exposed, err := f.dir.MakePrivate()
	if err != nil {
		return &errs.ConfigError{Field: "Dir", Reason: "the modes of its files cannot be looked at", Err: err}
	}
	if len(exposed) > 0 {
		f.log.Warn("other users of this machine may read files of the node; give them to the user that it runs as, with mode 0600, directories with 0700", "files", exposed)
	}
	return nil
}

// path returns where the directory is; empty: there is none.
func path(dir *durable.Dir) string {
	if dir == nil {
		return ""
	}
	return dir.Path()
}
