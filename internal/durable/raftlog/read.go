package raftlog

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/boltlog"
	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

func (l *Log) span() span {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.entries.span
}

// Base returns the index before the first entry. It is known even if the log is empty: it is then
// the index of the last entry that was deleted.
func (l *Log) Base() uint64 { return l.span().base }

// FirstIndex returns the index of the oldest entry, 0 if there is none.
func (l *Log) FirstIndex() (uint64, error) {
	l.alive()
	if s := l.span(); !s.empty() {
		return s.base + 1, nil
	}
	return 0, nil
}

// LastIndex returns the index of the newest entry, 0 if there is none.
func (l *Log) LastIndex() (uint64, error) {
	l.alive()
	if s := l.span(); !s.empty() {
		return s.last, nil
	}
	return 0, nil
}

// GetLog reads the entry at index. The error is raft.ErrLogNotFound or nil. AppendedAt is zero.
func (l *Log) GetLog(index uint64, out *raft.Log) error {
	l.alive()
	if s, ok := l.find(index); ok && s.entry != nil {
		*out = *s.entry
		return nil
	}
	sealed, err := l.read(index)
	if errors.Is(err, raft.ErrLogNotFound) {
		return raft.ErrLogNotFound
	}
	if err != nil {
		l.Fail(fmt.Sprintf("read entry %d", index), err)
	}
	*out = *sealed.Entry()
	return nil
}

// find returns a copy of an entry's slot.
func (l *Log) find(index uint64) (slot, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if !l.entries.has(index) {
		return slot{}, false
	}
	return *l.entries.slot(index), true
}

// read reads an entry from the disk. It must not be queued. The error is raft.ErrLogNotFound if
// there is no such entry.
func (l *Log) read(index uint64) (*boltlog.Sealed, error) {
	for {
		s, ok := l.find(index)
		if !ok {
			return nil, raft.ErrLogNotFound
		}
		sealed, err := l.readSlot(index, s)
		if err == nil {
			return sealed, nil
		}
		// It may have been moved or deleted meanwhile.
		if again, ok := l.find(index); ok && again.place == s.place && again.queued == s.queued {
			return nil, err
		}
	}
}

func (l *Log) readSlot(index uint64, s slot) (*boltlog.Sealed, error) {
	if s.isBack() {
		l.mu.RLock()
		back := l.back
		l.mu.RUnlock()
		return back.Get(index)
	}
	b, err := l.front.ReadAt(s.place, s.off, s.size)
	if err != nil {
		return nil, err
	}
	sealed, ok := boltlog.DecodeSealed(b)
	if !ok || sealed.Index() != index {
		return nil, &diskfile.DamagedError{Path: l.opts.Path, Reason: fmt.Sprintf("the checksum of entry %d is wrong", index)}
	}
	return sealed, nil
}
