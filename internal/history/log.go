package history

import (
	"errors"
	"fmt"
	"sort"
	"sync"

	"github.com/hashicorp/raft"
)

// Conflict says that two logs contradict each other in an entry.
type Conflict struct {
	// Index is the index of the entry.
	Index uint64

	// Own is the entry's term in this log. 0: it is not known.
	Own uint64

	// Other is the entry's term in the other log. 0: raft wants to delete the entry.
	Other uint64

	// Applied is the index of the newest entry that was applied here.
	Applied uint64
}

// Error names the entry and the contradiction.
func (c *Conflict) Error() string {
	switch {
	case c.Other == 0:
		return fmt.Sprintf("entry %d, of term %d, was applied here and cannot be deleted", c.Index, c.Own)
	case c.Own == 0 || c.Own == c.Other:
		return fmt.Sprintf("entry %d has the term %d in both logs, and what is written up to it differs",
			c.Index, c.Other)
	}
	return fmt.Sprintf("entry %d has the term %d here and %d there, and was applied here", c.Index, c.Own, c.Other)
}

// Log is a raft.LogStore that knows the sum at each of its entries. Make it with NewLog. Only one
// goroutine at a time may write, as raft does. Any goroutine may call the other methods.
type Log struct {
	raft.LogStore
	applied func() uint64   // index of the newest entry that this node has applied
	refuse  func(*Conflict) // called when raft would delete such an entry

	mu     sync.RWMutex
	base   uint64  // points[0] is of this index
	points []point // of consecutive indices; nil: nothing is known
}

// point is what is known of one entry.
type point struct {
	term  uint64 // 0: not known
	sum   Sum
	known bool   // the sum is
	bytes uint64 // of the entries up to this one, as far as they were seen
}

// NewLog returns a Log on s. It knows no sums until Seed is called. applied returns the index of
// the newest entry that this node has applied. refuse is called when raft wants to delete such an
// entry.
func NewLog(s raft.LogStore, applied func() uint64, refuse func(*Conflict)) *Log {
	return &Log{LogStore: s, applied: applied, refuse: refuse}
}

// Seed sets the sum at index, which comes from a snapshot. For a log without a snapshot both are 0.
// Seed reads all entries. Its error is that of the store.
func (l *Log) Seed(index uint64, sum Sum) error {
	first, err := l.LogStore.FirstIndex()
	if err != nil {
		return err
	}
	last, err := l.LogStore.LastIndex()
	if err != nil {
		return err
	}
	base := index
	if first > index+1 {
		base = first - 1 // the entries between are in the snapshot, and are raft's own
	} else if first != 0 && last >= index {
		base = first - 1
	}
	points := make([]point, 1, 1+last-min(base, last))
	if base >= index {
		points[0] = point{sum: sum, known: true}
	}
	for i := base + 1; i <= last; i++ {
		var e raft.Log
		if err := l.LogStore.GetLog(i, &e); err != nil {
			return err
		}
		before := points[len(points)-1]
		p := point{term: e.Term, bytes: before.bytes + sizeOf(&e)}
		switch {
		case i == index:
			p.sum, p.known = sum, true
		case i > index:
			p.sum, p.known = before.sum.Next(&e), before.known
		}
		points = append(points, p)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.base, l.points = base, points
	return nil
}

// at returns what is known of the entry at index. The caller holds l.mu.
func (l *Log) at(index uint64) (point, bool) {
	if index < l.base || index-l.base >= uint64(len(l.points)) {
		return point{}, false
	}
	return l.points[index-l.base], true
}

// At returns the sum at the entry of that index and term, and whether it is known. The term 0
// stands for any term.
func (l *Log) At(index, term uint64) (Sum, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	p, ok := l.at(index)
	return p.sum, ok && p.known && (term == 0 || p.term == 0 || p.term == term)
}

// overhead is about what an entry takes on the disk beside its content, in bytes, if it is written
// alone.
const overhead = 512

func sizeOf(e *raft.Log) uint64 { return uint64(len(e.Data)+len(e.Extensions)) + overhead }

// Since returns how many bytes the entries behind index take.
func (l *Log) Since(index uint64) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	end := len(l.points) - 1
	if end < 0 || index >= l.base+uint64(end) {
		return 0
	}
	return l.points[end].bytes - l.points[max(index, l.base)-l.base].bytes
}

// Newest returns how many of the newest entries take no more bytes together than limit.
func (l *Log) Newest(limit uint64) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	end := len(l.points) - 1
	if end < 0 {
		return 0
	}
	return uint64(end - sort.Search(end, func(i int) bool { return l.points[end].bytes-l.points[i].bytes <= limit }))
}

// Claim is what a leader says about its log: term and sum of one entry, and what follows it.
type Claim struct {
	// Index is the index of the entry.
	Index uint64

	// Term is the entry's term.
	Term uint64

	// Sum is the sum of all entries up to this one. It counts only if Known is true.
	Sum Sum

	// Known says that the leader knows Sum.
	Known bool

	// Entries are the entries that follow.
	Entries []*raft.Log
}

// Compare returns where a leader's log contradicts this one. It returns nil if the two may be the
// same log. Use it only for a leader whose term is not behind this node's: such a leader has
// everything that this node has applied.
func (l *Log) Compare(c Claim) *Conflict {
	applied := l.applied()
	l.mu.RLock()
	defer l.mu.RUnlock()
	sum, known := c.Sum, c.Known
	if p, ok := l.at(c.Index); ok && c.Index > 0 {
		switch {
		case p.term != 0 && p.term != c.Term && c.Index <= applied:
			return &Conflict{c.Index, p.term, c.Term, applied}
		case p.term != 0 && p.term != c.Term:
			return nil // raft finds where the logs part
		case known && p.known && p.sum != sum:
			return &Conflict{c.Index, p.term, c.Term, applied}
		}
		if p.known {
			sum, known = p.sum, true
		}
	}
	known = known || c.Index == 0
	for _, e := range c.Entries {
		sum = sum.Next(e)
		p, ok := l.at(e.Index)
		switch {
		case !ok && e.Index > l.base:
			return nil
		case !ok:
		case p.term != 0 && p.term != e.Term && e.Index > applied:
			return nil
		case p.term != 0 && p.term != e.Term, known && p.known && p.sum != sum:
			return &Conflict{e.Index, p.term, e.Term, applied}
		}
	}
	return nil
}

// StoreLog stores one entry.
func (l *Log) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs stores entries of consecutive indices. They may replace others only behind the newest
// entry that was applied.
func (l *Log) StoreLogs(entries []*raft.Log) error {
	if err := l.LogStore.StoreLogs(entries); err != nil || len(entries) == 0 {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	before := entries[0].Index - 1
	switch end := l.base + uint64(len(l.points)) - 1; {
	case l.points == nil:
		return nil
	case before < l.base:
		l.points = nil
		return nil
	case before > end: // a snapshot lies between; it ends with entries of raft's own
		last := l.points[len(l.points)-1]
		l.base, l.points = before, []point{{0, last.sum, last.known, last.bytes}}
	default:
		l.points = l.points[:before-l.base+1]
	}
	at := l.points[len(l.points)-1]
	for _, e := range entries {
		at = point{e.Term, at.sum.Next(e), at.known, at.bytes + sizeOf(e)}
		l.points = append(l.points, at)
	}
	return nil
}

// prefixed is a store that can delete entries at its beginning, and never the last one.
type prefixed interface {
	DeletePrefix(hi uint64) error
}

// DeletePrefix deletes the entries up to hi, but never the last one. Another goroutine than raft's
// may call it: raft may cut off the end of the log meanwhile.
func (l *Log) DeletePrefix(hi uint64) error {
	if p, ok := l.LogStore.(prefixed); ok {
		if err := p.DeletePrefix(hi); err != nil {
			return err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.forget(min(hi, l.base+uint64(max(1, len(l.points)))-2))
		return nil
	}
	first, err := l.LogStore.FirstIndex()
	if err != nil {
		return err
	}
	last, err := l.LogStore.LastIndex()
	if hi = min(hi, max(last, 1)-1); err != nil || first == 0 || first > hi {
		return err
	}
	return l.DeleteRange(first, hi)
}

// forget drops what is known of the entries before base, which becomes the base. The caller holds
// l.mu.
func (l *Log) forget(base uint64) {
	if l.points != nil && base > l.base && base-l.base < uint64(len(l.points)) {
		l.points = append([]point(nil), l.points[base-l.base:]...)
		l.base = base
	}
}

// errApplied is the error that raft gets when it wants to delete an applied entry at the end.
var errApplied = errors.New("entries that were applied are not deleted")

// DeleteRange deletes the entries from lo to hi at one end of the log. It deletes applied entries
// only at the beginning, where a snapshot replaces them. At the other end it refuses to, and
// returns an error.
func (l *Log) DeleteRange(lo, hi uint64) error {
	last, err := l.LogStore.LastIndex()
	if err != nil {
		return err
	}
	if applied := l.applied(); hi >= last && lo <= last && lo <= applied {
		l.mu.RLock()
		p, _ := l.at(lo)
		l.mu.RUnlock()
		l.refuse(&Conflict{Index: lo, Own: p.term, Applied: applied})
		return errApplied
	}
	if err := l.LogStore.DeleteRange(lo, hi); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.points == nil:
	case hi >= last && lo <= l.base:
		l.points = nil
	case hi >= last:
		l.points = l.points[:min(lo-l.base, uint64(len(l.points)))]
	case hi >= l.base+uint64(len(l.points)):
		l.points = nil
	default:
		l.forget(hi)
	}
	return nil
}
