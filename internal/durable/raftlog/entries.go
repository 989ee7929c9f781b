package raftlog

import (
	"slices"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/journal"
)

const memory = 4 << 20 // bytes of the newest entries that are kept in memory

// slot is an entry of the log.
type slot struct {
	entry  *raft.Log     // nil: it is not in memory
	queued bool          // it is not on the disk yet
	size   int           // of the sealed entry; 0: not known
	place  journal.Place // the batch that it is in; the zero Place: raft-boltdb has it
	off    int           // where it begins in the batch
}

// isBack reports whether raft-boltdb has the entry.
func (s *slot) isBack() bool { return !s.queued && s.place == journal.Place{} }

// entries says which entries a log has, and where they are. The newest are in memory.
type entries struct {
	span
	slots    []*slot // of the entries from base+1 on
	recent   uint64  // the oldest entry that is in memory; last+1 if none is
	inMemory int     // bytes of these
}

func newEntries(s span, slots []*slot) *entries {
	return &entries{span: s, slots: slots, recent: s.last + 1}
}

// slot returns the slot of an entry that is there.
func (e *entries) slot(index uint64) *slot { return e.slots[index-e.base-1] }

// has reports whether an entry is there.
func (e *entries) has(index uint64) bool { return index > e.base && index <= e.last }

// isWritten reports whether the entries up to index are on the disk, or were.
func (e *entries) isWritten(index uint64) bool {
	return index <= e.base || index <= e.last && !e.slot(index).queued
}

// add adds an entry. If there was none, it may have any index.
func (e *entries) add(index uint64, s *slot, sum uint32) {
	if e.empty() {
		e.base, e.recent = index-1, index
	}
	e.slots = append(e.slots, s)
	e.last, e.chain = index, sum
	e.inMemory += s.size
}

// cut takes away the entries behind last. chain is the checksum of that one.
func (e *entries) cut(last uint64, chain uint32) {
	for i := max(e.recent, last+1); i <= e.last; i++ {
		e.inMemory -= e.slot(i).size
	}
	clear(e.slots[last-e.base:])
	e.slots = e.slots[:last-e.base]
	e.last, e.chain = last, chain
	e.recent = min(e.recent, last+1)
}

// rebase takes away the entries up to base.
func (e *entries) rebase(base uint64) {
	for i := e.recent; i <= base; i++ {
		e.inMemory -= e.slot(i).size
	}
	e.slots = slices.Clone(e.slots[base-e.base:])
	e.base = base
	e.recent = max(e.recent, base+1)
}

// forget drops the oldest entries from memory, if there are too many. It keeps those that are not
// written yet.
func (e *entries) forget() {
	for ; e.inMemory > memory && e.recent <= e.last; e.recent++ {
		s := e.slot(e.recent)
		if s.queued {
			return
		}
		s.entry = nil
		e.inMemory -= s.size
	}
}
