package raftlog

import (
	"errors"
	"fmt"
)

// errStale says that raft-boltdb's file holds deleted entries beside others.
var errStale = errors.New("raft-boltdb's file holds entries that are needed, and some that were deleted")

// Purge returns when nothing of the entries that were deleted from the beginning of the log is on
// the disk any more. What it leaves are the entries of the log. An error says that this cannot be
// done now; it can be when more entries are deleted. See [diskfile.Erase] for what a disk may keep.
func (l *Log) Purge() error {
	l.alive()
	done := make(chan error, 1)
	select {
	case l.upkeep.purge <- done:
	case <-l.ended:
		l.alive()
	}
	select {
	case err := <-done:
		return err
	case <-l.ended:
		l.alive()
	}
	return nil
}

// purge does the work of Purge, as upkeep.
func (l *Log) purge() error {
	l.free()
	if back := l.span(); l.holdsDeleted(back.base) {
		return errStale
	}
	if err := l.front.Prepare(0); err != nil { // such as for lack of room: the log works on
		return err
	}
	if err := l.nextSegment(); err != nil {
		l.Fail("begin another part", err)
	}
	l.free()
	for {
		_, current := l.front.Segments()
		_, live, _ := l.oldest()
		if live == current {
			break
		}
		if !l.moveSegment() {
			return fmt.Errorf("the log is being closed")
		}
		l.free()
	}
	return nil
}

// holdsDeleted reports whether raft-boltdb's file has entries up to base, which were deleted.
func (l *Log) holdsDeleted(base uint64) bool {
	l.mu.RLock()
	back := l.back
	l.mu.RUnlock()
	return back.Last() > back.Base() && back.Base() < base
}

// nextSegment begins another segment of the journal, so that upkeep can remove those before it. It
// writes there what each segment begins with.
func (l *Log) nextSegment() error {
	l.writing <- struct{}{}
	defer func() { <-l.writing }()
	l.alive()
	if l.front.Fresh() {
		return nil
	}
	l.mu.RLock()
	now := l.durable
	l.mu.RUnlock()
	if err := l.front.Next(0); err != nil {
		return err
	}
	_, _, err := l.append(queue{op: "begin another part"}, now)
	return err
}
