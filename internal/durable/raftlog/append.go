package raftlog

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/boltlog"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
)

const (
	maxQueue = 4 << 20 // bytes that may wait for the disk; who adds more waits too
	maxSpare = 1 << 20 // size of a buffer that is kept for the next batch
)

// queue is a batch that is yet to be written.
type queue struct {
	op    string // what the first change in it is
	body  []byte // records
	marks []mark // the entries in it
}

type mark struct {
	*slot
	off int
}

// StoreLog stores one entry.
func (l *Log) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs stores entries in one batch. They must follow one another and the newest entry, or
// replace entries; the entries behind replaced ones are kept. A gap ends the log like a disk error:
// raft leaves one only behind a snapshot that package snapstore has not seen.
func (l *Log) StoreLogs(entries []*raft.Log) error {
	l.alive()
	if len(entries) > 0 {
		ticket, _ := l.store(entries)
		l.flush(ticket)
	}
	return nil
}

// Queue is like StoreLogs, but returns while the entries are being written. They can be read
// already. [Log.Durable] says when they are on the disk. Queue waits if too much is queued.
func (l *Log) Queue(entries []*raft.Log) {
	l.alive()
	if len(entries) == 0 {
		return
	}
	if ticket, full := l.store(entries); full {
		l.flush(ticket)
	}
	l.flushSoon()
}

// store queues entries. It returns the number of the change, and whether too much is queued.
func (l *Log) store(entries []*raft.Log) (ticket uint64, full bool) {
	const op = "store entries"
	l.changing <- struct{}{}
	defer func() { <-l.changing }()
	first, last := entries[0].Index, entries[len(entries)-1].Index
	for i, e := range entries {
		if e.Index != first+uint64(i) || e.Index == 0 {
			l.Fail(op, fmt.Errorf("entry %d is stored behind entry %d", e.Index, first))
		}
	}
	now := l.span()
	if !now.empty() && (first > now.last+1 || first <= now.base) {
		l.Fail(op, fmt.Errorf("entry %d is stored beside the entries %d to %d", first, now.base+1, now.last))
	}
	replaces := !now.empty() && first <= now.last
	for i := last + 1; replaces && i <= now.last; i++ { // they are chained to what is replaced
		e := new(raft.Log)
		if err := l.GetLog(i, e); err != nil {
			l.Fail(op, fmt.Errorf("entry %d: %w", i, err))
		}
		entries = append(slices.Clip(entries), e)
	}
	var chain uint32
	if replaces {
		chain = l.chainAt(op, first-1)
	}
	return l.change(op, func() {
		if replaces {
			l.cut(first-1, chain)
		}
		for _, e := range entries {
			l.add(e)
		}
	})
}

// change queues what f changes, and returns its number, and whether too much is queued. The caller
// has the token of changing.
func (l *Log) change(op string, f func()) (ticket uint64, full bool) {
	l.alive()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue.op = cmp.Or(l.queue.op, op)
	f()
	l.queued++
	return l.queued, len(l.queue.body) > maxQueue
}

// add queues an entry, which becomes the newest. The caller holds l.mu.
func (l *Log) add(e *raft.Log) {
	kept := *e
	kept.AppendedAt = time.Time{}
	chain := l.entries.chain
	if l.entries.empty() {
		chain = 0
	}
	s := &slot{entry: &kept, queued: true, size: boltlog.SealedSize(&kept)}
	if l.queue.body == nil {
		l.queue.body, l.spare = l.spare, nil
	}
	body, sum := appendEntry(l.queue.body, &kept, chain)
	l.queue.body = body
	l.queue.marks = append(l.queue.marks, mark{s, len(body) - s.size})
	l.entries.add(e.Index, s, sum)
}

// cut queues that the entries behind last are gone. The caller holds l.mu.
func (l *Log) cut(last uint64, chain uint32) {
	l.queue.body = appendIndex(l.queue.body, cutRecord, last)
	l.entries.cut(last, chain)
}

// rebase queues that the entries up to base are gone. The caller holds l.mu.
func (l *Log) rebase(base uint64) {
	l.queue.body = appendIndex(l.queue.body, baseRecord, base)
	l.entries.rebase(base)
}

// DeleteRange deletes the entries from lo to hi, both included, at either end of the log. Entries
// that are not there are ignored. At the beginning nothing is written: upkeep frees the space.
func (l *Log) DeleteRange(lo, hi uint64) error {
	const op = "delete entries"
	l.alive()
	l.changing <- struct{}{}
	defer func() { <-l.changing }()
	s := l.span()
	lo, hi = max(lo, s.base+1), min(hi, s.last)
	switch {
	case lo > hi:
	case hi < s.last && lo > s.base+1:
		l.Fail(op, fmt.Errorf("the entries %d to %d are in the middle of the log", lo, hi))
	case hi < s.last:
		// A crash may undo this. The entries are in a snapshot, so they do no harm.
		l.change(op, func() { l.rebase(hi) })
		l.tend()
	default:
		// If all entries go, base stays: a snapshot or another leader's entries may replace them.
		chain := l.chainAt(op, lo-1)
		ticket, _ := l.change(op, func() { l.cut(lo-1, chain) })
		l.flush(ticket)
	}
	return nil
}

// DeletePrefix deletes the entries up to hi, but never the last one, whatever others delete
// meanwhile. Nothing is written: upkeep frees the space.
func (l *Log) DeletePrefix(hi uint64) error {
	l.alive()
	l.changing <- struct{}{}
	defer func() { <-l.changing }()
	s := l.span()
	if s.empty() || min(hi, s.last-1) <= s.base {
		return nil
	}
	l.change("delete entries", func() { l.rebase(min(hi, s.last-1)) })
	l.tend()
	return nil
}

// chainAt returns the checksum of an entry, 0 if the log begins behind it.
func (l *Log) chainAt(op string, index uint64) uint32 {
	if index == l.span().base {
		return 0
	}
	l.flush(l.tickets()) // so that the sealed entry can be read
	sealed, err := l.read(index)
	if err != nil {
		l.Fail(op, fmt.Errorf("entry %d: %w", index, err))
	}
	return sealed.Sum()
}

func (l *Log) tickets() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.queued
}

// flushSoon has the queue written by a goroutine of its own.
func (l *Log) flushSoon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flushing || l.closed {
		return
	}
	l.flushing = true
	l.upkeep.running.Go(func() {
		for {
			l.mu.Lock()
			ticket := l.queued
			if l.written >= ticket {
				l.flushing = false
				l.mu.Unlock()
				return
			}
			l.mu.Unlock()
			l.flush(ticket)
		}
	})
}

// flush returns when that change is on the disk. One goroutine writes everything that is queued, so
// that those who wait meanwhile need one sync together.
func (l *Log) flush(ticket uint64) {
	for {
		l.alive()
		l.mu.RLock()
		done := l.written >= ticket
		l.mu.RUnlock()
		if done {
			return
		}
		l.writing <- struct{}{}
		l.write(ticket)
	}
}

// write writes the queue, unless that change is written already. It gives the token of writing
// back.
func (l *Log) write(ticket uint64) {
	defer func() { <-l.writing }()
	l.alive()
	l.mu.Lock()
	if l.written >= ticket {
		l.mu.Unlock()
		return
	}
	q, number, now, before := l.queue, l.queued, state{l.entries.span, l.now}, l.durable
	l.queue = queue{}
	l.mu.Unlock()

	if now.vote != before.vote {
		q.body = appendVote(q.body, now.vote)
	}
	l.since.Store(int64(time.Since(l.born)) + 1)
	defer l.since.Store(0)
	place, skip, err := l.append(q, before)
	if err != nil {
		l.Fail(q.op, err)
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range q.marks {
		m.queued, m.place, m.slot.off = false, place, skip+m.off
	}
	l.written, l.durable = number, now
	if cap(q.body) <= maxSpare {
		l.spare = q.body[:0]
	}
	l.entries.forget()
	l.move()
}

// append appends a batch to the journal. It returns where the batch is, and the length of what was
// put before the queue's records.
func (l *Log) append(q queue, before state) (place journal.Place, skip int, err error) {
	if l.opts.Fault != nil {
		if err := l.opts.Fault(q.op); err != nil {
			return place, 0, err
		}
	}
	body := q.body
	head := appendState(nil, before)
	if !l.front.Fits(len(body) + len(head)) {
		if err := l.front.Next(len(body) + len(head)); err != nil {
			return place, 0, err
		}
		l.tend()
	}
	if l.front.Fresh() {
		body, skip = append(head, body...), len(head)
	}
	if place, err = l.front.Append(body); err != nil {
		return place, 0, err
	}
	if l.front.HalfFull() {
		l.tend()
	}
	// What is written to a file without a name is gone with the process.
	return place, skip, l.opts.Files.InPlace(l.front.Path())
}
