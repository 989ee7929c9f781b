package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/notify"
)

const (
	mendShortest = 100 * time.Millisecond // between attempts to go on after a disk error, at first
	mendLongest  = time.Second
	mendSilence  = time.Minute // between two log lines about the same obstacle
)

// DiskCare looks after the node's directory: it notices what others do to it, and starts raft again
// after the disk has failed. Its methods are safe for concurrent use, except Restart. Run must run.
type DiskCare struct {
	dir    *durable.Dir // nil: in memory
	log    *slog.Logger
	life   *lifecycle.Life
	files  *files
	runner *Runner
	outage *Outage

	isMember func() bool
	rewrite  func() error // writes the identity file again
	flush    func()       // the disk works: write what it refused before
	said     string       // why a deleted file could not be written again; belongs to Run

	entered atomic.Bool // raft was started on the log; before that nobody depends on the disk
}

// Entered is called when raft was started for the first time. From then on raft is started again
// after a disk error.
func (c *DiskCare) Entered() {
	c.entered.Store(true)
	c.outage.trouble.Notify()
}

// OnFailure is called by the log when it has ended.
func (c *DiskCare) OnFailure(err error) {
	switch {
	case errors.Is(err, durable.ErrRestart):
		c.outage.trouble.Notify()
	case !MayPass(err):
		c.outage.Fail(err)
	case c.isMember(): // else nobody depends on the disk, and Runner returns the error
		c.outage.Interrupt(err)
	}
}

// Run looks after the directory until ctx ends, about once a second.
func (c *DiskCare) Run(ctx context.Context) {
	hung := false
	_ = notify.Loop(ctx, func() (time.Time, bool) {
		for c.entered.Load() && (c.life.Setback.Load() != nil || c.wantsRestart()) && ctx.Err() == nil {
			c.mend(ctx)
		}
		if ctx.Err() != nil {
			return time.Time{}, true
		}
		if c.files.stalled() != hung {
			if hung = !hung; hung {
				c.log.Error("the disk hangs: this node renews no lease and leads nobody until the write under way is done; check the disk", "event", event.DiskHangs, "dir", path(c.dir))
			} else {
				c.log.Info("the disk hangs no more", "event", event.DiskWorks, "dir", path(c.dir))
			}
			c.life.Changed.Notify()
		}
		if !hung {
			c.check()
			c.flush()
		}
		return time.Time{}, false
	}, &c.outage.trouble, &c.life.Second)
}

// wantsRestart reports whether the log has ended in favour of a snapshot, which only another
// instance of raft can take in.
func (c *DiskCare) wantsRestart() bool {
	d := c.files.disk.Load()
	return d != nil && errors.Is(d.failed(), durable.ErrRestart)
}

// check notices what others have done to the directory.
func (c *DiskCare) check() {
	if c.dir == nil {
		return
	}
	again, err := c.dir.Relock()
	if again {
		c.log.Error("the lock file was deleted or replaced under this node; it is locked again. Two processes on one directory would destroy it", "dir", path(c.dir))
	}
	if err == nil {
		err = c.dir.Check()
	}
	var moved *durable.MovedError
	switch {
	case err == nil:
	case MayPass(err) && c.entered.Load():
		c.outage.Interrupt(err)
	case errors.As(err, &moved) && moved.Missing && !moved.Dir: // there is only the identity yet
		failed := c.rewrite()
		if failed == nil {
			c.said = ""
			c.log.Warn("a file was deleted under this node; it is written again", "err", err)
		} else if text := failed.Error(); text != c.said {
			c.said = text
			c.log.Error("a file was deleted under this node and cannot be written again", "file", err, "err", c.outage.Explain(failed))
		}
	case MayPass(err): // the next operation of the node needs the disk, and reports it
	default:
		c.outage.Fail(fmt.Errorf("another process has taken %s from this node: %w; stop one of the two", path(c.dir), err))
	}
}

// mend starts raft again, until that succeeds, can never succeed, or ctx ends.
func (c *DiskCare) mend(ctx context.Context) {
	began, said := time.Now(), time.Now()
	last := ""
	for wait := mendShortest; ; wait = min(2*wait, mendLongest) {
		before := c.life.Setback.Load()
		err := c.Restart(began)
		if ctx.Err() != nil {
			return
		}
		// If the setback is another one now, the disk has failed again meanwhile.
		if err == nil && c.life.Setback.CompareAndSwap(before, nil) {
			if before != nil {
				c.log.Info("the disk works again: this node takes part in the cluster", "event", event.DiskWorks, "after", time.Since(began).Round(time.Millisecond))
			}
			c.life.Changed.Notify()
			return
		}
		if err != nil && !MayPass(err) {
			c.outage.Fail(fmt.Errorf("%w; what this node has in memory it serves until it is stopped", err))
			return
		}
		if err != nil && c.life.Setback.Load() == before {
			c.update(before, err)
			if text := err.Error(); text != last || time.Since(said) > mendSilence {
				c.log.Warn("this node still takes no part in the cluster", "err", c.outage.Explain(err), "for", time.Since(began).Round(time.Second))
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

// update replaces the reason of an interruption by a newer one.
func (c *DiskCare) update(before *lifecycle.Setback, err error) {
	if before == nil {
		c.outage.Interrupt(err)
		return
	}
	text := c.outage.Explain(err)
	if text.Error() != before.Err.Error() && c.life.Setback.CompareAndSwap(before, &lifecycle.Setback{Err: text}) {
		c.life.Changed.Notify()
	}
}

// Restart ends raft, opens its files again and starts raft on them. began is when raft was last
// running well: it decides whether deleted files are written again.
func (c *DiskCare) Restart(began time.Time) error {
	if c.files.stalled() {
		return errors.New("the disk hangs")
	}
	c.runner.port.Transport().Close() // the next call of Transport makes another
	if err := c.runner.EndRaft(); err != nil {
		return err
	}
	if c.dir != nil && c.life.Setback.Load() != nil {
		if err := c.recoverDir(time.Since(began) >= restoreAfter); err != nil {
			return err
		}
	}
	if !c.isMember() {
		return nil
	}
	if err := c.runner.OpenDisk(false); err != nil {
		return err
	}
	return c.runner.StartRaft()
}

// recoverDir makes sure that the directory is in place, can be written, and holds what this process
// has written. It writes deleted files again if restore is true. Raft must not run.
func (c *DiskCare) recoverDir(restore bool) error {
	if restore {
		if err := c.dir.Restore(); err != nil {
			return err
		}
	}
	if _, err := c.dir.Relock(); err != nil {
		return err
	}
	if err := c.dir.Check(); err != nil {
		return err
	}
	return c.dir.Probe()
}

// Leave writes files again that were deleted under this node, before its process ends and they are
// lost. Somebody who has deleted the identity too wants a new node, so then it writes nothing.
func (c *DiskCare) Leave() {
	var moved *durable.MovedError
	if c.dir == nil || !errors.As(c.dir.Check(), &moved) || !moved.Missing {
		return
	}
	if _, err := c.dir.ReadFile(durable.IdentityFile); err != nil {
		return
	}
	if err := c.dir.Restore(); err != nil {
		c.log.Error("what was deleted under this node cannot be written anew, and is lost with this process", "err", err)
		return
	}
	c.log.Warn("what was deleted under this node is written anew", "dir", path(c.dir))
}
