package clustertest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/internal/durable/journal"
)

const (
	sectorSize = 512 // what a disk writes as a whole
	settleTime = 10 * time.Millisecond
)

// errKilled is what a killed process gets from its disk, so that it writes nothing more.
var errKilled = errors.New("the process was killed")

// Step is a place in a program, between two of its steps, at which KillAt can have a node die.
// Those below are in flotilla. A program has its own by Cluster.Step.
type Step string

const (
	// BeforeWrite is before a batch of the raft log is written: the disk has nothing of it.
	BeforeWrite Step = "before the log is written"

	// TornWrite is in the middle of such a write: the disk has the first half of its sectors.
	TornWrite Step = "while the log is written"

	// BeforeSync is when a batch is written and not synced. It is there when the node is back, unless
	// Disk.LoseUnsynced was called.
	BeforeSync Step = "before the log is synced"

	// AfterSync is when a batch is on the disk, and nobody was told.
	AfterSync Step = "after the log was synced"
)

// Disk is the disk of one node. Its faults concern the log of raft, on which every write of the
// cluster and every vote waits. Snapshots and the small files of the directory are written by the
// real disk. A node without a directory has no disk to fail.
//
// The methods may be called while the node runs, and then concern what it writes from now on. They
// stay in force when the node is restarted.
type Disk struct {
	c     *Cluster
	node  int
	reach func(step Step, armed int) bool // see machine.reach
	armed func() int                      // see machine.armed

	mu       sync.Mutex
	slow     time.Duration
	fault    error // of every write; nil: none
	stopped  bool  // the process stands still
	killed   bool  // the process is dead: nothing is written any more
	lose     bool
	unsynced []extent
	held     bool          // the process has had a write that was held back
	begun    int           // what armed was when the newest batch began
	changed  chan struct{} // closed when any of these has changed
}

// extent is what a part of a file was before a write that is not synced.
type extent struct {
	file   *os.File
	off    int64
	before []byte
}

// Slow makes each sync of the log take that much longer. A node whose write takes more than a
// second says that its disk hangs, and neither leads nor holds a lease until the write is done. 0:
// the disk is as fast as it is, also for the writes that wait now.
func (d *Disk) Slow(by time.Duration) {
	d.c.t.Helper()
	d.c.notNegative("a delay", by)
	d.set(func() { d.slow = by })
	d.c.trace.add(name(d.node), "fault: its disk is slower by %v", by)
}

// Full makes every write of the log fail for want of space, or undoes that.
func (d *Disk) Full(full bool) { d.fail(full, syscall.ENOSPC) }

// Fail makes every write of the log fail with an I/O error, or undoes that.
func (d *Disk) Fail(fails bool) { d.fail(fails, syscall.EIO) }

func (d *Disk) fail(fails bool, err error) {
	what := "fault: its disk fails: " + err.Error()
	if !fails {
		what, err = "its disk works again", nil
	}
	d.set(func() { d.fault = err })
	d.c.trace.add(name(d.node), "%s", what)
}

// LoseUnsynced makes the next kill of the node a loss of power: what the log has written and not
// synced by then is not on the disk. A write is synced at once unless the disk is Slow or the node
// dies at a step: see KillAt.
func (d *Disk) LoseUnsynced() {
	d.set(func() { d.lose = true })
	d.c.trace.add(name(d.node), "fault: its disk will lose what is not synced")
}

// FlipBit turns one bit around in a file of the node's directory, at random among the bytes that
// are not zero, as ageing disks do. pattern is that of filepath.Glob; among several files it takes
// the first. The node must not run. TryRestart then returns a *flotilla.ConfigError, unless nothing
// depends on that byte: raft.db has some that are left from before.
func (d *Disk) FlipBit(pattern string) {
	d.c.t.Helper()
	if !d.c.dead[d.node] {
		d.c.t.Fatalf("%s runs, and has read its files; stop or kill it first", name(d.node))
	}
	found, err := filepath.Glob(filepath.Join(d.c.configs[d.node].Dir, pattern))
	if err == nil && len(found) == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		d.c.t.Fatalf("flipping a bit of %s in the directory of %s: %v", pattern, name(d.node), err)
	}
	b, err := os.ReadFile(found[0])
	if err != nil {
		d.c.t.Fatal(err)
	}
	var used []int
	for i := range b {
		if b[i] != 0 {
			used = append(used, i)
		}
	}
	if len(used) == 0 {
		d.c.t.Fatalf("flipping a bit of %s: it is empty", found[0])
	}
	at, bit := used[d.c.Rand().IntN(len(used))], d.c.Rand().IntN(8)
	b[at] ^= 1 << bit
	if err := os.WriteFile(found[0], b, 0o600); err != nil {
		d.c.t.Fatal(err)
	}
	d.c.trace.add(name(d.node), "fault: bit %d of byte %d of %s is flipped", bit, at, filepath.Base(found[0]))
}

// set changes the disk, and wakes the writes that wait.
func (d *Disk) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
	d.wake()
}

// wake wakes the writes that wait. The caller holds mu.
func (d *Disk) wake() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// stop has every write wait until the process goes on.
func (d *Disk) stop(stopped bool) { d.set(func() { d.stopped = stopped }) }

// begin is for the next process.
func (d *Disk) begin() { d.set(func() { d.killed, d.held, d.unsynced = false, false, nil }) }

// release lets all writes go that are held back, because the node is closed next.
func (d *Disk) release() { d.set(func() { d.slow, d.stopped = 0, false }) }

// settle waits until writes that were held back, and are no more, have ended. A node that is closed
// while a write takes long leaves its files open.
func (d *Disk) settle() {
	d.mu.Lock()
	held := d.held
	d.mu.Unlock()
	if held {
		time.Sleep(settleTime)
	}
}

// kill ends all writes, and loses what was not synced if that was asked for.
func (d *Disk) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.killed {
		return
	}
	d.killed, d.stopped = true, false
	lost := 0
	for i := len(d.unsynced) - 1; i >= 0 && d.lose; i-- {
		u := d.unsynced[i]
		if _, err := u.file.WriteAt(u.before, u.off); err == nil { // else it is closed, and was removed
			lost += len(u.before)
		}
	}
	if d.lose {
		d.c.trace.add(name(d.node), "its disk has lost %d bytes that were not synced", lost)
	}
	d.lose, d.unsynced = false, nil
	d.wake()
}

// await waits while the process stands still and, if d is slow, for that time. It returns the error
// of the write.
func (d *Disk) await(slow bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for begun := time.Now(); ; {
		left := time.Duration(0)
		if slow {
			left = d.slow - time.Since(begun)
		}
		switch {
		case d.killed:
			return errKilled
		case !d.stopped && left <= 0:
			return d.fault
		}
		changed := d.changed
		d.held = true
		d.mu.Unlock()
		waitFor(changed, left)
		d.mu.Lock()
	}
}

// waitFor returns when changed is closed, or after the time left if that is not 0.
func waitFor(changed <-chan struct{}, left time.Duration) {
	if left <= 0 {
		<-changed
		return
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	}
}

// before is durable.Faults.Before.
func (d *Disk) before(string) error { return d.await(false) }

// files is the durable.Faults.System of a disk.
type files struct {
	journal.OS
	*Disk
}

// isLog reports whether a file is part of the log, and not one that is being made.
func isLog(f *os.File) bool { return strings.HasSuffix(f.Name(), ".log") }

// WriteAt implements journal.System.
func (d files) WriteAt(f *os.File, b []byte, off int64) error {
	if isLog(f) {
		armed := d.armed()
		d.mu.Lock()
		d.begun = armed
		d.mu.Unlock()
		if d.reach(BeforeWrite, armed) {
			return errKilled
		}
		if d.reach(TornWrite, armed) {
			half := len(b) / 2 / sectorSize * sectorSize
			return errors.Join(errKilled, d.OS.WriteAt(f, b[:half], off))
		}
	}
	if err := d.await(false); err != nil {
		return err
	}
	d.remember(f, len(b), off)
	return d.OS.WriteAt(f, b, off)
}

// remember notes what a write will replace.
func (d *Disk) remember(f *os.File, size int, off int64) {
	if !isLog(f) {
		return // it has no name yet that a reader looks for
	}
	before := make([]byte, size)
	n, _ := f.ReadAt(before, off) // less at the end of the file, which does not grow then
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unsynced = append(d.unsynced, extent{f, off, before[:n]})
}

// Sync implements journal.System.
func (d files) Sync(f *os.File) error {
	d.mu.Lock()
	begun := d.begun
	d.mu.Unlock()
	if isLog(f) && d.reach(BeforeSync, begun) {
		return errKilled
	}
	if err := d.await(true); err != nil {
		return err
	}
	if err := d.OS.Sync(f); err != nil {
		return err
	}
	d.forget(f)
	if isLog(f) && d.reach(AfterSync, begun) {
		return errKilled
	}
	return nil
}

// forget drops what was noted of a file that is synced.
func (d *Disk) forget(f *os.File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := d.unsynced[:0]
	for _, u := range d.unsynced {
		if u.file != f {
			kept = append(kept, u)
		}
	}
	clear(d.unsynced[len(kept):])
	d.unsynced = kept
}

// SyncDir implements journal.System.
func (d files) SyncDir(path string) error {
	return d.unlessItFails(func() error { return d.OS.SyncDir(path) })
}

// Rename implements journal.System.
func (d files) Rename(from, to string) error {
	return d.unlessItFails(func() error { return d.OS.Rename(from, to) })
}

// Remove implements journal.System.
func (d files) Remove(path string) error {
	return d.unlessItFails(func() error { return d.OS.Remove(path) })
}

func (d files) unlessItFails(do func() error) error {
	if err := d.await(false); err != nil {
		return fmt.Errorf("clustertest: %w", err)
	}
	return do()
}
