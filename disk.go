package flotilla

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
	hanging      = time.Second            // a write to the disk that takes longer hangs
	diskLook     = time.Second            // between two looks at the directory
	mendShortest = 100 * time.Millisecond // between attempts to go on after a disk error, at first
	mendLongest  = time.Second
	mendSilence  = time.Minute      // between two sentences in the log about the same obstacle
	restoreAfter = 30 * time.Second // so long a deleted file may be put back before the node writes it anew
)

// disk is where raft keeps what it must not forget.
type disk struct {
	logs   raft.LogStore
	stable raft.StableStore
	snaps  raft.SnapshotStore
	busy   func() time.Duration // how long the write under way has taken so far
	failed func() error         // what ended the log, nil: it works
	run    func(func() error) error
	close  func() error
	mark   durable.Mark // what the last process had applied
}

// lockDir takes the node's directory.
func lockDir(path string) (*durable.Dir, error) {
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

// makePrivate keeps other users of this machine from the files of the node.
func (n *replica) makePrivate() error {
	if n.dir == nil {
		return nil
	}
	exposed, err := n.dir.MakePrivate()
	if err != nil {
		return &errs.ConfigError{Field: "Dir", Reason: "the modes of its files cannot be looked at", Err: err}
	}
	if len(exposed) > 0 {
		n.log.Warn("other users of this machine may read files of the node; give them to the user that it runs as, with mode 0600, directories with 0700", "files", exposed)
	}
	return nil
}

// diskOptions are how a node's disk is opened.
type diskOptions struct {
	create bool                  // its files are new; else they must be there
	failed func(error)           // told, on a goroutine of its own, that the log has ended
	fault  func(op string) error // see durable.LogOptions
	log    *slog.Logger
}

// openDisk opens the log and the snapshots in dir, or in memory if that is nil.
func openDisk(dir *durable.Dir, o diskOptions) (*disk, error) {
	if dir == nil {
		store := raft.NewInmemStore()
		snaps := durable.GuardSnapshots(raft.NewInmemSnapshotStore(), store)
		return &disk{logs: store, stable: store, snaps: snaps, busy: func() time.Duration { return 0 }, failed: func() error { return nil }, run: func(f func() error) error { return f() }, close: func() error { return nil }}, nil
	}
	if o.create && dir.HasLog() {
		// A start that came to nothing: no entry of it was ever told to anybody.
		if err := dir.RemoveState(); err != nil {
			return nil, err
		}
	}
	log, err := dir.OpenLog(durable.LogOptions{Create: o.create, Failed: o.failed, Fault: o.fault, Logger: o.log})
	if err != nil {
		return nil, &errs.ConfigError{Field: "Dir", Reason: "the raft log cannot be used", Err: err}
	}
	snaps, err := dir.OpenSnapshots(log, o.log)
	if err != nil {
		return nil, errors.Join(&errs.ConfigError{Field: "Dir", Reason: "the snapshots cannot be used", Err: err}, log.Close())
	}
	return &disk{logs: log, stable: log, snaps: snaps, busy: log.Busy, failed: log.Err, run: log.Run, close: log.Close, mark: dir.ReadMark()}, nil
}

// openDisk opens this node's disk. Its files must be there unless create is true.
func (n *replica) openDisk(create bool) error {
	d, err := openDisk(n.dir, diskOptions{create: create, failed: n.diskFailed, fault: n.fault, log: n.log})
	if err != nil {
		return err
	}
	n.disk.Store(d)
	return nil
}

// diskFailed is told by the log that it has ended.
func (n *replica) diskFailed(err error) {
	switch {
	case errors.Is(err, durable.ErrRestart):
		n.troubled.Notify()
	case !passes(err):
		n.fail(err)
	case n.up.isMember(): // else nobody counts on it, and whoever was about to make it one has the error
		n.suffer(err)
	}
}

// suffer ends what this node does in the cluster until keepDisk has mended what err says. All that hangs on the lease is given up at once.
// What is in memory is served as before.
func (n *replica) suffer(err error) {
	if n.life.Works.Err() != nil {
		return
	}
	explained := n.explain(err)
	old := n.life.Setback.Swap(&lifecycle.Setback{Err: explained})
	n.life.Setbacks.Add(1) // before the lease is lost: see live
	if lost := n.up.loseLease(err); lost != 0 {
		n.life.LostSession.Store(lost)
	}
	n.port.Transport().Stop()
	if old == nil { // else mend says it
		n.log.Error("this node takes no part in the cluster now; it goes on serving what it has in memory, and tries again by itself", "err", explained)
	}
	n.life.Changed.Notify()
	n.troubled.Notify()
	n.life.Tasks.Go(func() { n.up.excuse(n.life.Works) })
}

// ofDisk reports whether an error is the system's, and not about what was read.
func ofDisk(err error) bool { return errors.As(err, new(syscall.Errno)) }

// passes reports whether what err says may be over after a while, so that it is tried again. An error that knows better says so by its method
// Permanent.
func passes(err error) bool {
	p, ok := errors.AsType[interface {
		error
		Permanent() bool
	}](err)
	return !ok || !p.Permanent()
}

// explain adds the remedy to an error of the disk's.
func (n *replica) explain(err error) error {
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

// keepDisk looks after the directory until ctx ends: it notices what others do to it, and takes up the node's part in the cluster
// again after the disk has failed.
func (n *replica) keepDisk(ctx context.Context) {
	hung := false
	for ctx.Err() == nil {
		troubled, looks := n.troubled.Wait(), n.looks.Wait()
		if n.entered.Load() && (n.life.Setback.Load() != nil || n.wantsRestart()) {
			n.mend(ctx)
			continue
		}
		if n.stalled() != hung {
			if hung = !hung; hung {
				n.log.Error("the disk hangs: this node renews no lease and leads nobody until the write under way is done; check the disk", "dir", n.path())
			} else {
				n.log.Info("the disk hangs no more", "dir", n.path())
			}
			n.life.Changed.Notify()
		}
		if !hung {
			n.lookAtDisk()
			n.up.flushOwn()
		}
		select {
		case <-troubled:
		case <-looks:
		case <-ctx.Done():
		}
	}
}

// wantsRestart reports whether the log has ended in favour of a snapshot, which takes another instance of raft.
func (n *replica) wantsRestart() bool {
	d := n.disk.Load()
	return d != nil && errors.Is(d.failed(), durable.ErrRestart)
}

// lookAtDisk notices what others have done to the directory.
func (n *replica) lookAtDisk() {
	if n.dir == nil {
		return
	}
	again, err := n.dir.Relock()
	if again {
		n.log.Error("the lock file was deleted or replaced under this node; it is locked again. Two processes on one directory would destroy it", "dir", n.path())
	}
	if err == nil {
		err = n.dir.Check()
	}
	var moved *durable.MovedError
	switch {
	case err == nil:
	case passes(err) && n.entered.Load():
		n.suffer(err)
	case errors.As(err, &moved) && moved.Missing && !moved.Dir: // there is no more than the identity
		n.log.Error("a file was deleted under this node; it is written again", "err", err)
		if err := n.up.rewrite(); err != nil {
			n.log.Error("it cannot be", "err", n.explain(err))
		}
	case passes(err): // whatever the node is about to do needs the disk, and says so
	default:
		n.fail(fmt.Errorf("another process has taken %s from this node: %w; stop one of the two", n.path(), err))
	}
}

// mend starts raft anew until that works, until it never can, or until ctx ends.
func (n *replica) mend(ctx context.Context) {
	began, said := time.Now(), time.Now()
	last := ""
	for wait := mendShortest; ; wait = min(2*wait, mendLongest) {
		before := n.life.Setback.Load()
		err := n.restart(began)
		if ctx.Err() != nil {
			return
		}
		if err == nil && n.life.Setback.CompareAndSwap(before, nil) { // else it has failed again meanwhile
			if before != nil {
				n.log.Info("the disk works again: this node takes part in the cluster", "after", time.Since(began).Round(time.Millisecond))
			}
			n.life.Changed.Notify()
			return
		}
		if err != nil && !passes(err) {
			n.fail(fmt.Errorf("%w; what this node has in memory it serves until it is stopped", err))
			return
		}
		if err != nil && n.life.Setback.Load() == before {
			if before == nil {
				n.suffer(err)
			} else if text := n.explain(err); text.Error() != before.Err.Error() && n.life.Setback.CompareAndSwap(before, &lifecycle.Setback{Err: text}) {
				n.life.Changed.Notify()
			}
			if text := err.Error(); text != last || time.Since(said) > mendSilence {
				n.log.Warn("this node still takes no part in the cluster", "err", n.explain(err), "for", time.Since(began).Round(time.Second))
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

// restart ends raft, opens its files again and starts it on what they hold. Since when raft does not run decides whether what
// was deleted is written anew.
func (n *replica) restart(began time.Time) error {
	if n.stalled() {
		return errors.New("the disk hangs")
	}
	n.port.Transport().Close() // the next call of Transport makes another
	if err := n.endRaft(); err != nil {
		return err
	}
	if n.dir != nil && n.life.Setback.Load() != nil {
		if err := n.recoverDir(time.Since(began) >= restoreAfter); err != nil {
			return err
		}
	}
	if !n.up.isMember() {
		return nil
	}
	if err := n.openDisk(false); err != nil {
		return err
	}
	return n.startRaft()
}

// recoverDir makes sure that the directory is in place, holds what this process has written and can be written, and writes what
// was deleted anew if restore is true. Raft does not run.
func (n *replica) recoverDir(restore bool) error {
	if restore {
		if err := n.dir.Restore(); err != nil {
			return err
		}
	}
	if _, err := n.dir.Relock(); err != nil {
		return err
	}
	if err := n.dir.Check(); err != nil {
		return err
	}
	return n.dir.Probe()
}

// leaveDir writes what was deleted under this node anew before its process ends and takes the rest of it along. Whoever has deleted the
// node's identity as well wants a new node.
func (n *replica) leaveDir() {
	var moved *durable.MovedError
	if n.dir == nil || !errors.As(n.dir.Check(), &moved) || !moved.Missing {
		return
	}
	if _, err := n.dir.ReadFile(durable.IdentityFile); err != nil {
		return
	}
	if err := n.dir.Restore(); err != nil {
		n.log.Error("what was deleted under this node cannot be written anew, and is lost with this process", "err", err)
		return
	}
	n.log.Warn("what was deleted under this node is written anew", "dir", n.path())
}

// stalled reports whether the disk hangs. A leader whose disk does is not to keep its followers quiet.
func (n *replica) stalled() bool {
	d := n.disk.Load()
	return d != nil && d.busy() > hanging
}

// bootstrap makes first the configuration that raft begins with, on the disk that is open.
func (n *replica) bootstrap(first raft.Configuration) error {
	d := n.disk.Load()
	return d.run(func() error {
		return raft.BootstrapCluster(n.raftConfig(), d.logs, d.stable, d.snaps, n.port.Transport(), first)
	})
}

// dropDisk closes the disk on which raft was not started.
func (n *replica) dropDisk() error {
	if d := n.disk.Swap(nil); d != nil {
		return d.close()
	}
	return nil
}

// path returns where this node's directory is, for people; empty: it has none.
func (n *replica) path() string {
	if n.dir == nil {
		return ""
	}
	return n.dir.Path()
}
