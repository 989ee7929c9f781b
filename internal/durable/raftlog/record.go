package raftlog

import (
	"encoding/binary"
	"errors"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/boltlog"
	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// Kinds of records. A batch of the journal is a series of them.
const (
	entryRecord = 1 // size 4, a sealed entry: it is the newest now
	cutRecord   = 2 // index 8: the entries behind it are gone
	baseRecord  = 3 // index 8: the entries up to it are gone
	voteRecord  = 4 // a vote
	stateRecord = 5 // a span, a vote: what the log was before; it begins each segment
)

// span is what the log holds: the entries base+1 to last.
type span struct {
	base, last uint64
	chain      uint32 // checksum of the entry at last; 0 if there is none
}

func (s span) empty() bool { return s.base == s.last }

// state is what the log is, apart from the content of its entries.
type state struct {
	span
	vote boltlog.Vote
}

// appendEntry also returns the checksum of the entry.
func appendEntry(b []byte, e *raft.Log, prev uint32) ([]byte, uint32) {
	b = append(b, entryRecord)
	b = binary.BigEndian.AppendUint32(b, uint32(boltlog.SealedSize(e)))
	return boltlog.AppendSealed(b, e, prev)
}

func appendIndex(b []byte, kind byte, index uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, kind), index)
}

func appendVote(b []byte, v boltlog.Vote) []byte { return putVote(append(b, voteRecord), v) }

func putVote(b []byte, v boltlog.Vote) []byte {
	var flags byte
	if v.HasTerm {
		flags |= 1
	}
	if v.HasVote {
		flags |= 2
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint64(b, v.Term)
	b = binary.BigEndian.AppendUint64(b, v.VoteTerm)
	b = binary.BigEndian.AppendUint16(b, uint16(len(v.Candidate)))
	return append(b, v.Candidate...)
}

func appendState(b []byte, s state) []byte {
	b = append(b, stateRecord)
	b = binary.BigEndian.AppendUint64(b, s.base)
	b = binary.BigEndian.AppendUint64(b, s.last)
	b = binary.BigEndian.AppendUint32(b, s.chain)
	return putVote(b, s.vote)
}

// reader gets what records call for. The offset of an entry is where it begins in the batch.
type reader interface {
	entry(off int, e *boltlog.Sealed) error
	cut(last uint64) error
	rebase(base uint64) error
	vote(v boltlog.Vote) error
	state(s state) error
}

var errRecord = errors.New("a record cannot be read")

// readRecords hands the records of a batch to r. The error is r's, or a diskfile.Finding.
func readRecords(batch []byte, r reader) error {
	in := input{b: batch}
	for len(in.b) > 0 && !in.short {
		var err error
		switch kind := in.take(1)[0]; kind {
		case entryRecord:
			size := int(in.uint32())
			off := len(batch) - len(in.b)
			e, ok := boltlog.DecodeSealed(in.take(size))
			if in.short || !ok {
				return diskfile.Damaged("%v", errRecord)
			}
			err = r.entry(off, e)
		case cutRecord:
			if v := in.uint64(); !in.short {
				err = r.cut(v)
			}
		case baseRecord:
			if v := in.uint64(); !in.short {
				err = r.rebase(v)
			}
		case voteRecord:
			if v := in.vote(); !in.short {
				err = r.vote(v)
			}
		case stateRecord:
			s := state{span: span{in.uint64(), in.uint64(), in.uint32()}, vote: in.vote()}
			if !in.short {
				err = r.state(s)
			}
		default:
			return diskfile.Damaged("%v", errRecord)
		}
		if err != nil {
			return err
		}
	}
	if in.short {
		return diskfile.Damaged("%v", errRecord)
	}
	return nil
}

// input is what is left of a batch. It gives zeros when it has become too short.
type input struct {
	b     []byte
	short bool
}

func (in *input) take(n int) []byte {
	if n < 0 || n > len(in.b) {
		in.short = true
		return make([]byte, min(max(n, 0), 8))
	}
	out := in.b[:n:n]
	in.b = in.b[n:]
	return out
}

func (in *input) uint16() uint16 { return binary.BigEndian.Uint16(in.take(2)) }
func (in *input) uint32() uint32 { return binary.BigEndian.Uint32(in.take(4)) }
func (in *input) uint64() uint64 { return binary.BigEndian.Uint64(in.take(8)) }

func (in *input) vote() boltlog.Vote {
	flags := in.take(1)[0]
	if flags > 3 {
		in.short = true
	}
	v := boltlog.Vote{HasTerm: flags&1 != 0, HasVote: flags&2 != 0, Term: in.uint64(), VoteTerm: in.uint64()}
	v.Candidate = string(in.take(int(in.uint16())))
	return v
}
