package raftlog

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/flotilla-ha/flotilla/internal/durable/boltlog"
	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
)

const (
	moveAfter  = 48 << 20 // see Options.MoveAfter
	moveAtOnce = 1 << 20  // bytes of entries in one transaction

	// FormerSuffix ends the name of a file of raft-boltdb that another has replaced, until it is
	// overwritten.
	FormerSuffix = ".former" + diskfile.TmpSuffix

	prepareRest = 5 * time.Second // after an attempt to make the next segment that failed
)

// keepUp does upkeep until the log ends.
func (l *Log) keepUp() {
	for {
		select {
		case <-l.upkeep.wake:
		case done := <-l.upkeep.purge:
			l.alive()
			done <- l.purge()
			continue
		case <-l.upkeep.stop:
			return
		}
		l.alive() // Close does not wait for the next segment
		l.prepare()
		l.free()
		for l.front.Bytes() > l.opts.MoveAfter && l.moveSegment() {
			l.free()
		}
	}
}

// prepare makes the next segment, so that no write has to wait for it. On a full disk each attempt
// takes all that is left for a moment, so it rests after one that failed.
func (l *Log) prepare() {
	if time.Since(l.upkeep.full) < prepareRest {
		return
	}
	if err := l.front.Prepare(0); err != nil {
		l.upkeep.full = time.Now()
		l.opts.Logger.Warn("no room is made for the raft log ahead of time", "path", l.opts.Path, "err", err)
	}
}

// free removes what no entry of the log needs: the oldest segments, and raft-boltdb's file if all
// of its entries are deleted.
func (l *Log) free() {
	l.mu.RLock()
	back, base := l.back, l.entries.base
	l.mu.RUnlock()
	first, oldest, ticket := l.oldest() // after base, so that flush writes what has led to it
	dead := back.Last() > back.Base() && back.Last() <= base
	if oldest == first && !dead {
		return
	}
	l.flush(ticket) // that they were deleted
	front := boltlog.Front{ID: l.id, From: oldest}
	l.mu.RLock()
	vote := l.durable.vote
	l.mu.RUnlock()
	var err error
	if dead {
		err = l.renew(vote, front)
	} else {
		err = back.SetVote(vote, front)
	}
	if err == nil {
		err = l.front.Remove(oldest, l.prepare)
	}
	if err != nil {
		l.Fail("free space", err)
	}
}

// oldest returns the first segment of the journal, the first one with an entry of the log, and the
// number of the newest change.
func (l *Log) oldest() (first, live, ticket uint64) {
	first, live = l.front.Segments()
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.entries.slots {
		if !s.isBack() {
			if !s.queued {
				live = s.place.Segment
			}
			break
		}
	}
	return first, live, l.queued
}

// renew puts an empty file in the place of raft-boltdb's. A file of bbolt never shrinks, and keeps
// what was deleted. So the old one is overwritten.
func (l *Log) renew(v boltlog.Vote, f boltlog.Front) error {
	tmp := l.opts.Path + diskfile.TmpSuffix
	_ = os.Remove(tmp)
	if err := boltlog.Create(tmp, v, f); err != nil {
		return err
	}
	l.mu.RLock()
	old := l.back
	l.mu.RUnlock()
	if _, _, err := old.Close(); err != nil { // Windows replaces no open file
		return err
	}
	// A second name, because Windows replaces no open file.
	former := l.opts.Path + FormerSuffix
	_ = os.Remove(former)
	if err := os.Link(l.opts.Path, former); err != nil {
		l.opts.Logger.Warn("the former raft.db is removed and not overwritten", "path", l.opts.Path, "err", err)
	}
	back, err := l.replace(tmp)
	l.mu.Lock()
	if l.replaced = err != nil; !l.replaced {
		l.back = back
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	l.eraseFormer(former)
	return nil
}

// eraseFormer overwrites and removes the file that another has replaced. The log does not need it,
// so an error is only logged: the file is then there when the directory is opened the next time.
func (l *Log) eraseFormer(path string) {
	err := diskfile.EraseAt(path, l.upkeep.stop)
	if err == nil {
		err = removeIfThere(path)
	}
	if err != nil && !errors.Is(err, diskfile.ErrStopped) {
		l.opts.Logger.Warn("the former raft.db is not overwritten; that is tried again when the node starts", "path", path, "err", err)
	}
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// replace gives the file tmp the place of raft-boltdb's, and opens it.
func (l *Log) replace(tmp string) (*boltlog.Log, error) {
	if err := l.opts.Files.Replace(tmp, l.opts.Path); err != nil {
		return nil, err
	}
	f, err := os.Open(l.opts.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return boltlog.Open(boltlog.Options{Path: l.opts.Path, File: f, Wrap: l.opts.Wrap})
}

// moveSegment moves the entries of the oldest segment to raft-boltdb. It returns false if there is
// nothing to move, or if the log ends meanwhile.
func (l *Log) moveSegment() bool {
	_, current := l.front.Segments()
	_, segment, _ := l.oldest()
	if segment == current {
		return false
	}
	for {
		began := time.Now()
		first, slots := l.nextToMove(segment)
		l.mu.RLock()
		back := l.back
		l.mu.RUnlock()
		if len(slots) == 0 || back.Last() > back.Base() && back.Last() < first-1 {
			// They are moved; or all that is in raft-boltdb is deleted, and free is the quicker way.
			return true
		}
		moved, err := l.moveBatch(back, first, slots)
		if err != nil {
			l.Fail("move entries", err)
		}
		if moved == 0 { // they were deleted meanwhile
			return true
		}
		l.moved(first, slots[:moved])
		select {
		case <-time.After(time.Since(began)):
		case <-l.upkeep.stop:
			return false
		}
	}
}

// nextToMove returns the slots of the oldest entries of a segment, and the index of the first.
func (l *Log) nextToMove(segment uint64) (first uint64, slots []*slot) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	size := 0
	for i, s := range l.entries.slots {
		if s.isBack() {
			continue
		}
		if s.queued || s.place.Segment != segment || size > moveAtOnce {
			break
		}
		if len(slots) == 0 {
			first = l.entries.base + 1 + uint64(i)
		}
		slots, size = append(slots, s), size+s.size
	}
	return first, slots
}

// moveBatch stores entries in raft-boltdb, up to the first that was deleted meanwhile. It returns
// how many they are.
func (l *Log) moveBatch(back *boltlog.Log, first uint64, slots []*slot) (int, error) {
	var batch []*boltlog.Sealed
	for i, s := range slots {
		index := first + uint64(i)
		now, ok := l.copyOf(index, s)
		if !ok {
			break
		}
		e, err := l.readSlot(index, now)
		if _, ok := l.copyOf(index, s); !ok {
			break
		}
		if err != nil {
			return 0, err
		}
		batch = append(batch, e)
	}
	if len(batch) == 0 {
		return 0, nil
	}
	keep := first - 1
	if l.span().base >= keep && back.Last() > back.Base() {
		// All entries in raft-boltdb are deleted. The one before may be another than the one there.
		l.flush(l.tickets()) // that they were deleted
		keep = 0
	}
	if err := back.Cut(keep); err != nil {
		return 0, fmt.Errorf("cut off entries: %w", err)
	}
	return len(batch), back.Append(batch)
}

// copyOf returns a copy of a slot, or false if it is no longer that of an entry of the log.
func (l *Log) copyOf(index uint64, s *slot) (slot, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if !l.entries.has(index) || l.entries.slot(index) != s {
		return slot{}, false
	}
	return *s, true
}

// moved records that raft-boltdb has entries, as far as they are still in the log.
func (l *Log) moved(first uint64, slots []*slot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range slots {
		if index := first + uint64(i); l.entries.has(index) && l.entries.slot(index) == s {
			s.place, s.off = journal.Place{}, 0
		}
	}
}
