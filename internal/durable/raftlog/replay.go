package raftlog

import (
	"fmt"

	"github.com/flotilla-ha/flotilla/internal/durable/boltlog"
	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
)

// replay finds out what a log holds, from the entries in raft-boltdb and the records of its
// journal. Call inBack, begin, batch and end, in this order.
//
// The journal begins with the state of the log at that time. Some of the entries that it had then
// may be neither in the journal nor in raft-boltdb: they were deleted later. So whether everything
// is there is known only at the end.
type replay struct {
	keep  bool // the slots hold the entries
	now   state
	slots []*slot // of the entries from now.base+1 on
	links []link  // of the same entries

	back      []link // of the entries in raft-boltdb
	backSlots []slot // of the same entries
	backFirst uint64 // index of the first of these

	place   journal.Place // of the batch that is read
	segment uint64        // that the batch before was in; 0: there was none
	fresh   bool          // the next record is the first of its segment
}

// link is how an entry is chained.
type link struct{ prev, sum uint32 }

// inBack takes an entry in raft-boltdb.
func (r *replay) inBack(e *boltlog.Sealed) error {
	if len(r.back) == 0 {
		r.backFirst = e.Index()
	}
	r.back = append(r.back, link{e.Prev(), e.Sum()})
	s := slot{size: e.Size()}
	if r.keep {
		s.entry = e.Entry()
	}
	r.backSlots = append(r.backSlots, s)
	return nil
}

// begin starts from what raft-boltdb holds.
func (r *replay) begin(base, last uint64, v boltlog.Vote) {
	s := state{span: span{base: base, last: last}, vote: v}
	if n := len(r.back); n > 0 {
		s.chain = r.back[n-1].sum
	}
	r.reset(s)
}

// reset makes the log one whose entries are all in raft-boltdb, or are found to be deleted later.
func (r *replay) reset(s state) {
	r.now, r.slots, r.links = s, nil, nil
	for i := s.base + 1; i <= s.last; i++ {
		s, l := new(slot), link{}
		if at := i - r.backFirst; i >= r.backFirst && at < uint64(len(r.back)) {
			l, *s = r.back[at], r.backSlots[at]
		}
		r.slots, r.links = append(r.slots, s), append(r.links, l)
	}
}

// lastIsBack reports whether the newest entry is in raft-boltdb, so that its checksum counts only
// at the end.
func (r *replay) lastIsBack() bool { return len(r.slots) > 0 && r.slots[len(r.slots)-1].isBack() }

// batch takes a batch of the journal.
func (r *replay) batch(p journal.Place, body []byte) error {
	r.fresh, r.place = p.Segment != r.segment, p
	if err := readRecords(body, r); err != nil {
		return err
	}
	r.segment = p.Segment
	return nil
}

// begun fails unless the segment has begun with the state.
func (r *replay) begun() error {
	if r.fresh {
		return diskfile.Damaged("it does not begin as it should")
	}
	return nil
}

func (r *replay) state(s state) error {
	if !r.fresh || s.last < s.base {
		return diskfile.Damaged("a record is out of place")
	}
	r.fresh = false
	if r.segment == 0 {
		r.reset(s)
		return nil
	}
	if r.lastIsBack() {
		r.now.chain = s.chain
	}
	if s != r.now {
		return diskfile.Damaged("it does not go on where the segment before ends")
	}
	return nil
}

func (r *replay) entry(off int, e *boltlog.Sealed) error {
	if err := r.begun(); err != nil {
		return err
	}
	if r.now.empty() {
		r.now.base, r.now.last, r.now.chain = e.Index()-1, e.Index()-1, 0
	}
	if e.Index() != r.now.last+1 || e.Prev() != r.now.chain && !r.lastIsBack() {
		return diskfile.Damaged("entry %d does not follow entry %d", e.Index(), r.now.last)
	}
	s := &slot{size: e.Size(), place: r.place, off: off}
	if r.keep {
		s.entry = e.Entry()
	}
	r.slots = append(r.slots, s)
	r.links = append(r.links, link{e.Prev(), e.Sum()})
	r.now.last, r.now.chain = e.Index(), e.Sum()
	return nil
}

func (r *replay) cut(last uint64) error {
	if err := r.begun(); err != nil {
		return err
	}
	if last < r.now.base || last >= r.now.last {
		return diskfile.Damaged("entry %d is cut off, and is not there", last+1)
	}
	n := last - r.now.base
	r.slots, r.links = r.slots[:n], r.links[:n]
	r.now.last, r.now.chain = last, 0
	if n > 0 {
		r.now.chain = r.links[n-1].sum
	}
	return nil
}

func (r *replay) rebase(base uint64) error {
	if err := r.begun(); err != nil {
		return err
	}
	if base <= r.now.base || base >= r.now.last {
		return diskfile.Damaged("entry %d is deleted, and is not there", base)
	}
	n := base - r.now.base
	r.slots, r.links, r.now.base = r.slots[n:], r.links[n:], base
	return nil
}

func (r *replay) vote(v boltlog.Vote) error {
	r.now.vote = v
	return r.begun()
}

// end checks that every entry is there, and that they are chained. path is that of raft-boltdb's
// file.
func (r *replay) end(path string) error {
	journaled := false
	for i, s := range r.slots {
		index := r.now.base + 1 + uint64(i)
		if at := index - r.backFirst; s.isBack() && (journaled || index < r.backFirst || at >= uint64(len(r.back))) {
			return &diskfile.DamagedError{Path: path, Reason: fmt.Sprintf("entry %d is missing", index)}
		}
		journaled = journaled || !s.isBack()
		if i > 0 && r.links[i].prev != r.links[i-1].sum {
			return &diskfile.DamagedError{Path: path, Reason: fmt.Sprintf("entry %d does not belong behind entry %d", index, index-1)}
		}
	}
	if n := len(r.links); n > 0 && r.links[n-1].sum != r.now.chain {
		return &diskfile.DamagedError{Path: path, Reason: fmt.Sprintf("entry %d is not the one that was written", r.now.last)}
	}
	return nil
}
