package boltlog

import (
	"encoding/binary"
	"hash/crc32"
	"math"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

const (
	logsBucket = "logs" // raft-boltdb's names
	confBucket = "conf"
	voteKey    = "vote"

	trailerIndex = math.MaxUint64 // the trailer's key: behind every entry

	entrySuffix   = 8 // checksum of the entry before, checksum of this one
	recordVersion = 1
	maxCandidate  = 1 << 10
)

// span is what the log holds: the entries base+1 to last.
type span struct {
	base, last uint64
	chain      uint32 // checksum of the entry at last; 0 if there is none
}

func (s span) empty() bool { return s.base == s.last }

func (s span) holds(index uint64) bool { return index > s.base && index <= s.last }

// seal returns the entry as it is stored, and its checksum. Behind its data are the checksums of
// the entry before and of this one. AppendedAt is left out: it is only operational information, and
// no checksum of ours could cover it.
func seal(e *raft.Log, prev uint32) (*raft.Log, uint32) {
	data := make([]byte, 0, len(e.Data)+entrySuffix)
	data = append(data, e.Data...)
	data = binary.BigEndian.AppendUint32(data, prev)
	sum := entrySum(e, data)
	data = binary.BigEndian.AppendUint32(data, sum)
	return &raft.Log{Index: e.Index, Term: e.Term, Type: e.Type, Data: data, Extensions: e.Extensions}, sum
}

// unseal undoes seal in place. It returns the checksums of the entry before and of this one, and
// false if the entry is not as it was stored.
func unseal(e *raft.Log, index uint64) (prev, sum uint32, ok bool) {
	n := len(e.Data) - 4
	if e.Index != index || n < 4 {
		return 0, 0, false
	}
	sum = binary.BigEndian.Uint32(e.Data[n:])
	if entrySum(e, e.Data[:n]) != sum {
		return 0, 0, false
	}
	prev = binary.BigEndian.Uint32(e.Data[n-4:])
	e.Data = e.Data[: n-4 : n-4]
	if len(e.Data) == 0 {
		e.Data = nil
	}
	if len(e.Extensions) == 0 {
		e.Extensions = nil
	}
	return prev, sum, true
}

// entrySum is the CRC-32C of everything in the entry that raft relies on. data ends with the
// checksum of the entry before.
func entrySum(e *raft.Log, data []byte) uint32 {
	var head [25]byte
	binary.BigEndian.PutUint64(head[0:], e.Index)
	binary.BigEndian.PutUint64(head[8:], e.Term)
	head[16] = byte(e.Type)
	binary.BigEndian.PutUint64(head[17:], uint64(len(e.Extensions)))
	sum := crc32.Update(0, diskfile.Castagnoli(), head[:])
	sum = crc32.Update(sum, diskfile.Castagnoli(), e.Extensions)
	return crc32.Update(sum, diskfile.Castagnoli(), data)
}

// entryDecoder reads what raft-boltdb stores in its bucket "logs". It belongs to one goroutine.
type entryDecoder struct{ dec *codec.Decoder }

func (d *entryDecoder) decode(value []byte) (*raft.Log, error) {
	if d.dec == nil {
		d.dec = codec.NewDecoderBytes(nil, &codec.MsgpackHandle{})
	}
	var e raft.Log
	d.dec.ResetBytes(value)
	if err := d.dec.Decode(&e); err != nil {
		return nil, err
	}
	return &e, nil
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

	hasTerm, hasVote bool
	term             uint64 // CurrentTerm
	voteTerm         uint64 // LastVoteTerm
	candidate        []byte // LastVoteCand
}

func (v voteRecord) encode() []byte {
	var flags byte
	for i, set := range []bool{v.opening, v.hasTerm, v.hasVote} {
		if set {
			flags |= 1 << i
		}
	}
	b := []byte{recordVersion, flags}
	for _, n := range []uint64{v.txid, v.trailer, v.term, v.voteTerm} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return diskfile.AppendSum(append(b, v.candidate...))
}

func decodeVote(b []byte) (voteRecord, error) {
	b, ok := diskfile.CutSum(b)
	if !ok || len(b) < 2+4*8 || len(b) > 2+4*8+maxCandidate || b[0] != recordVersion || b[1] > 7 {
		return voteRecord{}, diskfile.Damaged("the record of term and vote is wrong")
	}
	v := voteRecord{
		opening: b[1]&1 != 0, hasTerm: b[1]&2 != 0, hasVote: b[1]&4 != 0,
		txid:     binary.BigEndian.Uint64(b[2:]),
		trailer:  binary.BigEndian.Uint64(b[10:]),
		term:     binary.BigEndian.Uint64(b[18:]),
		voteTerm: binary.BigEndian.Uint64(b[26:]),
	}
	v.candidate = append([]byte{}, b[34:]...)
	return v, nil
}
