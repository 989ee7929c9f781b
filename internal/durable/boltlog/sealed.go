package boltlog

import (
	"encoding/binary"
	"hash/crc32"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

const entrySuffix = 8 // checksum of the entry before, checksum of this one

// Sealed is an entry as it is stored: behind its data are the checksums of the entry before and of
// this one. It is not changed.
type Sealed struct {
	log       raft.Log
	prev, sum uint32
}

// check reports whether an entry that was read is the one at index, as it was stored.
func (s *Sealed) check(index uint64) bool {
	n := len(s.log.Data) - 4
	if s.log.Index != index || n < 4 {
		return false
	}
	s.prev = binary.BigEndian.Uint32(s.log.Data[n-4:])
	s.sum = binary.BigEndian.Uint32(s.log.Data[n:])
	return entrySum(&s.log, s.log.Data[:n]) == s.sum
}

// Index returns the index of the entry.
func (s *Sealed) Index() uint64 { return s.log.Index }

// Prev returns the checksum of the entry before.
func (s *Sealed) Prev() uint32 { return s.prev }

// Sum returns the checksum of the entry, which covers the one of the entry before.
func (s *Sealed) Sum() uint32 { return s.sum }

// Size returns the size of the entry in bytes.
func (s *Sealed) Size() int { return sealedHead + len(s.log.Data) + len(s.log.Extensions) }

// Entry returns the entry that was sealed. AppendedAt is zero.
func (s *Sealed) Entry() *raft.Log {
	e := raft.Log{Index: s.log.Index, Term: s.log.Term, Type: s.log.Type}
	if n := len(s.log.Data) - entrySuffix; n > 0 {
		e.Data = s.log.Data[:n:n]
	}
	if len(s.log.Extensions) > 0 {
		e.Extensions = s.log.Extensions
	}
	return &e
}

// AppendSealed appends an entry to b as it is stored. prev is the Sum of the entry before, 0 if
// there is none. It also returns the checksum of the entry. AppendedAt is left out: it is only
// operational information, and no checksum of ours could cover it.
func AppendSealed(b []byte, e *raft.Log, prev uint32) ([]byte, uint32) {
	b = appendHead(slices.Grow(b, SealedSize(e)), e)
	at := len(b)
	b = append(b, e.Data...)
	b = binary.BigEndian.AppendUint32(b, prev)
	sum := entrySum(e, b[at:])
	return binary.BigEndian.AppendUint32(b, sum), sum
}

// SealedSize returns the size of an entry that is sealed, in bytes.
func SealedSize(e *raft.Log) int { return sealedHead + len(e.Data) + entrySuffix + len(e.Extensions) }

// appendHead appends what is before the data of an entry.
func appendHead(b []byte, e *raft.Log) []byte {
	b = binary.BigEndian.AppendUint64(b, e.Index)
	b = binary.BigEndian.AppendUint64(b, e.Term)
	b = append(b, byte(e.Type))
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Extensions)))
	return append(b, e.Extensions...)
}

const sealedHead = 8 + 8 + 1 + 4 // index, term, type, length of the extensions

// DecodeSealed is the inverse of AppendSealed. It returns false if b is no sealed entry. It keeps
// b.
func DecodeSealed(b []byte) (*Sealed, bool) {
	if len(b) < sealedHead {
		return nil, false
	}
	s := &Sealed{log: raft.Log{
		Index: binary.BigEndian.Uint64(b), Term: binary.BigEndian.Uint64(b[8:]), Type: raft.LogType(b[16]),
	}}
	n := uint64(binary.BigEndian.Uint32(b[17:]))
	if b = b[sealedHead:]; n > uint64(len(b)) {
		return nil, false
	}
	s.log.Extensions, s.log.Data = slices.Clip(b[:n]), slices.Clip(b[n:])
	return s, s.check(s.log.Index)
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
