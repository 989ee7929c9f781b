package boltlog

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

const (
	logsBucket = "logs" // raft-boltdb's names
	confBucket = "conf"
	voteKey    = "vote"

	trailerIndex = math.MaxUint64 // the trailer's key: behind every entry

	recordVersion = 1
	voteVersion   = 2 // of the vote record: with the journal in front
	maxCandidate  = 1 << 10
)

// span is what the log holds: the entries base+1 to last.
type span struct {
	base, last uint64
	chain      uint32 // checksum of the entry at last; 0 if there is none
}

func (s span) empty() bool { return s.base == s.last }

func (s span) holds(index uint64) bool { return index > s.base && index <= s.last }

// entryDecoder reads what raft-boltdb stores in its bucket "logs". It belongs to one goroutine.
type entryDecoder struct{ dec *codec.Decoder }

func (d *entryDecoder) decode(value []byte) (*Sealed, error) {
	if d.dec == nil {
		d.dec = codec.NewDecoderBytes(nil, &codec.MsgpackHandle{})
	}
	var s Sealed
	d.dec.ResetBytes(value)
	if err := d.dec.Decode(&s.log); err != nil {
		return nil, err
	}
	return &s, nil
}

// trailer is the record behind the log's entries. It is written in the same transaction as they
// are.
type trailer struct {
	txid uint64 // the transaction that wrote it
	vote uint64 // the one that wrote the vote record at that time
	now  span
	// next is what the log holds once the deletion in progress is done; equal to now if there is
	// none. raft-boltdb deletes in a transaction of its own, so both are right until the next
	// trailer.
	next span
}

func (t trailer) deleting() bool { return t.now != t.next }

func (t trailer) encode() []byte {
	b := []byte{recordVersion}
	for _, v := range []uint64{
		t.txid, t.vote,
		t.now.base, t.now.last, uint64(t.now.chain),
		t.next.base, t.next.last, uint64(t.next.chain),
	} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return diskfile.AppendSum(b)
}

func decodeTrailer(b []byte) (trailer, error) {
	b, ok := diskfile.CutSum(b)
	if !ok || len(b) != 1+8*8 || b[0] != recordVersion {
		return trailer{}, diskfile.Damaged("the record behind the log's entries is wrong")
	}
	var v [8]uint64
	for i := range v {
		v[i] = binary.BigEndian.Uint64(b[1+8*i:])
	}
	return trailer{
		txid: v[0], vote: v[1],
		now:  span{v[2], v[3], uint32(v[4])},
		next: span{v[5], v[6], uint32(v[7])},
	}, nil
}

// voteRecord is the one value of the bucket "conf": all that raft keeps in its stable store.
type voteRecord struct {
	txid    uint64 // the transaction that wrote it
	trailer uint64 // the one that wrote the trailer at that time; 0: there was none
	opening bool   // written at open: one transaction that changes nothing may follow

	Vote
	Front
}

// Vote is what raft keeps in its stable store: its term, and its last vote.
type Vote struct {
	HasTerm   bool   // CurrentTerm was set
	HasVote   bool   // there was a vote
	Term      uint64 // CurrentTerm
	VoteTerm  uint64 // LastVoteTerm
	Candidate string // LastVoteCand
}

// check reports why a vote cannot be stored.
func (v Vote) check() error {
	if len(v.Candidate) > maxCandidate {
		return fmt.Errorf("a candidate's address of %d bytes is too long", len(v.Candidate))
	}
	return nil
}

// Front says which journal is in front of the log. The zero Front says that there is none.
type Front struct {
	ID   uint64 // of the journal
	From uint64 // its first segment
}

func (v voteRecord) encode() []byte {
	var flags byte
	for i, set := range []bool{v.opening, v.HasTerm, v.HasVote} {
		if set {
			flags |= 1 << i
		}
	}
	b := []byte{voteVersion, flags}
	for _, n := range []uint64{v.txid, v.trailer, v.Term, v.VoteTerm, v.ID, v.From} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return diskfile.AppendSum(append(b, v.Candidate...))
}

// decodeVote reads a record. One of version 1 has no journal in front.
func decodeVote(b []byte) (voteRecord, error) {
	b, ok := diskfile.CutSum(b)
	n := 2 + 4*8
	if ok && b[0] == voteVersion {
		n += 2 * 8
	}
	if !ok || len(b) < n || len(b) > n+maxCandidate || b[0] != recordVersion && b[0] != voteVersion || b[1] > 7 {
		return voteRecord{}, diskfile.Damaged("the record of term and vote is wrong")
	}
	v := voteRecord{
		opening: b[1]&1 != 0,
		txid:    binary.BigEndian.Uint64(b[2:]),
		trailer: binary.BigEndian.Uint64(b[10:]),
		Vote: Vote{
			HasTerm: b[1]&2 != 0, HasVote: b[1]&4 != 0,
			Term:      binary.BigEndian.Uint64(b[18:]),
			VoteTerm:  binary.BigEndian.Uint64(b[26:]),
			Candidate: string(b[n:]),
		},
	}
	if b[0] == voteVersion {
		v.Front = Front{binary.BigEndian.Uint64(b[34:]), binary.BigEndian.Uint64(b[42:])}
	}
	return v, nil
}
