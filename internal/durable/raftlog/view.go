package raftlog

import (
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/boltlog"
	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
)

// Summary is what a log holds.
type Summary struct {
	Term        uint64 // raft's current term
	First, Last uint64 // indices of the entries; 0: there are none
	Bytes       int64  // size of the files
}

// Read checks a log with plain reads. path is that of raft-boltdb's file. each gets every entry in
// order. The error is a diskfile.DamagedError, the system's, or each's.
func Read(path string, each func(*raft.Log) error) (Summary, error) {
	r := replay{keep: true}
	back, err := boltlog.Read(path, r.inBack)
	if err != nil {
		return Summary{}, diskfile.Named(path, err)
	}
	r.begin(back.Base, back.Last, back.Vote)
	s := Summary{Bytes: back.Bytes}
	if back.Front.ID != 0 { // else it was written before there were journals
		n, err := journal.Read(filepath.Dir(path), back.Front.ID, back.Front.From, r.batch)
		if err != nil {
			return Summary{}, err
		}
		s.Bytes += n
	}
	if err := r.end(path); err != nil {
		return Summary{}, err
	}
	s.Term = r.now.vote.Term
	if r.now.empty() {
		return s, nil
	}
	s.First, s.Last = r.now.base+1, r.now.last
	for _, slot := range r.slots {
		if each == nil {
			break
		}
		if err := each(slot.entry); err != nil {
			return Summary{}, err
		}
	}
	return s, nil
}
