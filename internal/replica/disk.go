package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
)

const (
	Hanging      = time.Second            // a write to the disk that takes longer hangs
	DiskLook     = time.Second            // between two looks at the directory
	mendShortest = 100 * time.Millisecond // between attempts to go on after a disk error, at first
	mendLongest  = time.Second
	mendSilence  = time.Minute      // between two sentences in the log about the same obstacle
	restoreAfter = 30 * time.Second // so long a deleted file may be put back before the node writes it anew
)

// Disk is where raft keeps what it must not forget.
type Disk struct {
	logs   raft.LogStore
	stable raft.StableStore
	Snaps  raft.SnapshotStore
	busy   func() time.Duration // how long the write under way has taken so far
	failed func() error         // what ended the log, nil: it works
	run    func(func() error) error
	Close  func() error
	mark   durable.Mark // what the last process had applied
}

// LockDir takes the node's directory.
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

// MakePrivate keeps other users of this machine from the files of the node.
func (n *Replica) MakePrivate() error {
	if n.Dir == nil {
		return nil
	}
	exposed, err := n.Dir.MakePrivate()
	if err != nil {
		return &errs.ConfigError{Field: "Dir", Reason: "the modes of its files cannot be looked at", Err: err}
	}
	if len(exposed) > 0 {
		n.Log.Warn("other users of this machine may read files of the node; give them to the user that it runs as, with mode 0600, directories with 0700", "files", exposed)
	}
	return nil
}

// DiskOptions are how a node's disk is opened.
type DiskOptions struct {
	Create bool                  // its files are new; else they must be there
	Failed func(error)           // told, on a goroutine of its own, that the log has ended
	Fault  func(op string) error // see durable.LogOptions
	Log    *slog.Logger
}

// OpenDisk opens the log and the snapshots in dir, or in memory if that is nil.
func OpenDisk(dir *durable.Dir, o DiskOptions) (*Disk, error) {
	if dir == nil {
		store := raft.NewInmemStore()
		snaps := durable.GuardSnapshots(raft.NewInmemSnapshotStore(), store)
		return &Disk{logs: store, stable: store, Snaps: snaps, busy: func() time.Duration { return 0 }, failed: func() error { return nil }, run: func(f func() error) error { return f() }, Close: func() error { return nil }}, nil
	}
	if o.Create && dir.HasLog() {
		// A start that came to nothing: no entry of it was ever told to anybody.
		if err := dir.RemoveState(); err != nil {
			return nil, err
		}
	}
	log, err := dir.OpenLog(durable.LogOptions{Create: o.Create, Failed: o.Failed, Fault: o.Fault, Logger: o.Log})
	if err != nil {
		return nil, &errs.ConfigError{Field: "Dir", Reason: "the raft log cannot be used", Err: err}
	}
	snaps, err := dir.OpenSnapshots(log, o.Log)
	if err != nil {
		return nil, errors.Join(&errs.ConfigError{Field: "Dir", Reason: "the snapshots cannot be used", Err: err}, log.Close())
	}
	return &Disk{logs: log, stable: log, Snaps: snaps, busy: log.Busy, failed: log.Err, run: log.Run, Close: log.Close, mark: dir.ReadMark()}, nil
}

// OpenDisk opens this node's disk. Its files must be there unless create is true.
func (n *Replica) OpenDisk(create bool) error {
	d, err := OpenDisk(n.Dir, DiskOptions{Create: create, Failed: n.DiskFailed, Fault: n.Fault, Log: n.Log})
	if err != nil {
		return err
	}
	n.Disk.Store(d)
	return nil
}

// DiskFailed is told by the log that it has ended.
func (n *Replica) DiskFailed(err error) {
	switch {
	case errors.Is(err, durable.ErrRestart):
		n.Troubled.Notify()
	case !MayPass(err):
		n.Fail(err)
	case n.Up.IsMember(): // else nobody counts on it, and whoever was about to make it one has the error
		n.Interrupt(err)
	}
}

// Interrupt ends what this node does in the cluster until keepDisk has mended what err says. All that hangs on the lease is given up at once.
// What is in memory is served as before.
func (n *Replica) Interrupt(err error) {
	if n.Life.Works.Err() != nil {
		return
	}
	explained := n.Explain(err)
	old := n.Life.Setback.Swap(&lifecycle.Setback{Err: explained})
	n.Life.Setbacks.Add(1) // before the lease is lost: see live
	if lost := n.Up.LoseLease(err); lost != 0 {
		n.Life.LostSession.Store(lost)
	}
	n.Port.Transport().Stop()
	if old == nil { // else mend says it
		n.Log.Error("this node takes no part in the cluster now; it goes on serving what it has in memory, and tries again by itself", "err", explained)
	}
	n.Life.Changed.Notify()
	n.Troubled.Notify()
	n.Life.Tasks.Go(func() { n.Up.Excuse(n.Life.Works) })
}

// OfDisk reports whether an error is the system's, and not about what was read.
func OfDisk(err error) bool { return errors.As(err, new(syscall.Errno)) }

// MayPass reports whether what err says may be over after a while, so that it is tried again. An error that knows better says so by its method
// Permanent.
func MayPass(err error) bool {
	p, ok := errors.AsType[interface {
		error
		Permanent() bool
	}](err)
	return !ok || !p.Permanent()
}

// Explain adds the remedy to an error of the disk's.
func (n *Replica) Explain(err error) error {
	remedy := "check the disk and the system's log"
	var moved *durable.MovedError
	switch {
	case errors.As(err, &moved) && !moved.Missing:
		remedy = "put the original back, or stop this node"
		if !moved.Dir {
			remedy = fmt.Sprintf("put the original back; or remove what is there now, then this node writes its own again after %v", restoreAfter)
		}
	case errors.As(err, &moved) && moved.Dir:
		remedy = fmt.Sprintf("put it back, or stop this node and start it with the right Dir; if it was deleted this node writes it anew after %v", restoreAfter)
	case errors.As(err, &moved):
		remedy = fmt.Sprintf("put it back; else this node writes it anew, from what it has open, %v after it was missed, or when it is stopped in order; do not kill it before", restoreAfter)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		remedy = "make room in " + n.path()
	case errors.Is(err, syscall.EROFS):
		remedy = "mount the file system of " + n.path() + " writable"
	case errors.Is(err, fs.ErrPermission):
		remedy = "let this process write to " + n.path() + " again"
	}
	return fmt.Errorf("the disk fails: %w; %s", err, remedy)
}

// KeepDisk looks after the directory until ctx ends: it notices what others do to it, and takes up the node's part in the cluster
// again after the disk has failed.
func (n *Replica) KeepDisk(ctx context.Context) {
	hung := false
	for ctx.Err() == nil {
		troubled, looks := n.Troubled.Wait(), n.Looks.Wait()
		if n.Entered.Load() && (n.Life.Setback.Load() != nil || n.wantsRestart()) {
			n.mend(ctx)
			continue
		}
		if n.Stalled() != hung {
			if hung = !hung; hung {
				n.Log.Error("the disk hangs: this node renews no lease and leads nobody until the write under way is done; check the disk", "dir", n.path())
			} else {
				n.Log.Info("the disk hangs no more", "dir", n.path())
			}
			n.Life.Changed.Notify()
		}
		if !hung {
			n.lookAtDisk()
			n.Up.FlushOwn()
		}
		select {
		case <-troubled:
		case <-looks:
		case <-ctx.Done():
		}
	}
}

// wantsRestart reports whether the log has ended in favour of a snapshot, which takes another instance of raft.
func (n *Replica) wantsRestart() bool {
	d := n.Disk.Load()
	return d != nil && errors.Is(d.failed(), durable.ErrRestart)
}

// lookAtDisk notices what others have done to the directory.
func (n *Replica) lookAtDisk() {
	if n.Dir == nil {
		return
	}
	again, err := n.Dir.Relock()
	if again {
		n.Log.Error("the lock file was deleted or replaced under this node; it is locked again. Two processes on one directory would destroy it", "dir", n.path())
	}
	if err == nil {
		err = n.Dir.Check()
	}
	var moved *durable.MovedError
	switch {
	case err == nil:
	case MayPass(err) && n.Entered.Load():
		n.Interrupt(err)
	case errors.As(err, &moved) && moved.Missing && !moved.Dir: // there is no more than the identity
		n.Log.Error("a file was deleted under this node; it is written again", "err", err)
		if err := n.Up.Rewrite(); err != nil {
			n.Log.Error("it cannot be", "err", n.Explain(err))
		}
	case MayPass(err): // whatever the node is about to do needs the disk, and says so
	default:
		n.Fail(fmt.Errorf("another process has taken %s from this node: %w; stop one of the two", n.path(), err))
	}
}

// mend starts raft anew until that works, until it never can, or until ctx ends.
func (n *Replica) mend(ctx context.Context) {
	began, said := time.Now(), time.Now()
	last := ""
	for wait := mendShortest; ; wait = min(2*wait, mendLongest) {
		before := n.Life.Setback.Load()
		err := n.Restart(began)
		if ctx.Err() != nil {
			return
		}
		if err == nil && n.Life.Setback.CompareAndSwap(before, nil) { // else it has failed again meanwhile
			if before != nil {
				n.Log.Info("the disk works again: this node takes part in the cluster", "after", time.Since(began).Round(time.Millisecond))
			}
			n.Life.Changed.Notify()
			return
		}
		if err != nil && !MayPass(err) {
			n.Fail(fmt.Errorf("%w; what this node has in memory it serves until it is stopped", err))
			return
		}
		if err != nil && n.Life.Setback.Load() == before {
			if before == nil {
				n.Interrupt(err)
			} else if text := n.Explain(err); text.Error() != before.Err.Error() && n.Life.Setback.CompareAndSwap(before, &lifecycle.Setback{Err: text}) {
				n.Life.Changed.Notify()
			}
			if text := err.Error(); text != last || time.Since(said) > mendSilence {
				n.Log.Warn("this node still takes no part in the cluster", "err", n.Explain(err), "for", time.Since(began).Round(time.Second))
				last, said = text, time.Now()
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// Restart ends raft, opens its files again and starts it on what they hold. Since when raft does not run decides whether what
// was deleted is written anew.
func (n *Replica) Restart(began time.Time) error {
	if n.Stalled() {
		return errors.New("the disk hangs")
	}
	n.Port.Transport().Close() // the next call of Transport makes another
	if err := n.EndRaft(); err != nil {
		return err
	}
	if n.Dir != nil && n.Life.Setback.Load() != nil {
		if err := n.recoverDir(time.Since(began) >= restoreAfter); err != nil {
			return err
		}
	}
	if !n.Up.IsMember() {
		return nil
	}
	if err := n.OpenDisk(false); err != nil {
		return err
	}
	return n.StartRaft()
}

// recoverDir makes sure that the directory is in place, holds what this process has written and can be written, and writes what
// was deleted anew if restore is true. Raft does not run.
func (n *Replica) recoverDir(restore bool) error {
	if restore {
		if err := n.Dir.Restore(); err != nil {
			return err
		}
	}
	if _, err := n.Dir.Relock(); err != nil {
		return err
	}
	if err := n.Dir.Check(); err != nil {
		return err
	}
	return n.Dir.Probe()
}

// LeaveDir writes what was deleted under this node anew before its process ends and takes the rest of it along. Whoever has deleted the
// node's identity as well wants a new node.
func (n *Replica) LeaveDir() {
	var moved *durable.MovedError
	if n.Dir == nil || !errors.As(n.Dir.Check(), &moved) || !moved.Missing {
		return
	}
	if _, err := n.Dir.ReadFile(durable.IdentityFile); err != nil {
		return
	}
	if err := n.Dir.Restore(); err != nil {
		n.Log.Error("what was deleted under this node cannot be written anew, and is lost with this process", "err", err)
		return
	}
	n.Log.Warn("what was deleted under this node is written anew", "dir", n.path())
}

// Stalled reports whether the disk hangs. A leader whose disk does is not to keep its followers quiet.
func (n *Replica) Stalled() bool {
	d := n.Disk.Load()
	return d != nil && d.busy() > Hanging
}

// Bootstrap makes first the configuration that raft begins with, on the disk that is open.
func (n *Replica) Bootstrap(first raft.Configuration) error {
	d := n.Disk.Load()
	return d.run(func() error {
		return raft.BootstrapCluster(n.raftConfig(), d.logs, d.stable, d.Snaps, n.Port.Transport(), first)
	})
}

// DropDisk closes the disk on which raft was not started.
func (n *Replica) DropDisk() error {
	if d := n.Disk.Swap(nil); d != nil {
		return d.Close()
	}
	return nil
}

// path returns where this node's directory is, for people; empty: it has none.
func (n *Replica) path() string {
	if n.Dir == nil {
		return ""
	}
	return n.Dir.Path()
}
