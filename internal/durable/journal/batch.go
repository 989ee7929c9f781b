package journal

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

const (
	batchHead = 1 + 4 + 8 + 4 + 4

	continues = 1 // flag: the next segment goes on

	// MaxBatch is the size in bytes of the largest batch.
	MaxBatch = 256 << 20
)

// Position is the end of a journal: the number of its newest batch, and that batch's checksum. The
// zero Position is that of a journal without batches.
type Position struct {
	Number uint64 // of the newest batch; they begin with 1
	Sum    uint32 // its checksum
}

// header begins a batch.
type header struct {
	flags byte
	size  int      // of the content
	prev  uint32   // checksum of the batch before
	end   Position // of the batch itself
}

// newHeader returns the header of the batch that follows p.
func newHeader(p Position, flags byte, body []byte) header {
	h := header{flags: flags, size: len(body), prev: p.Sum}
	h.end = Position{p.Number + 1, h.sum(p.Number+1, body)}
	return h
}

// sum is the checksum of a batch, which covers the one of the batch before.
func (h header) sum(number uint64, body []byte) uint32 {
	var b [17]byte
	b[0] = h.flags
	binary.BigEndian.PutUint32(b[1:], uint32(h.size))
	binary.BigEndian.PutUint64(b[5:], number)
	binary.BigEndian.PutUint32(b[13:], h.prev)
	sum := crc32.Update(0, diskfile.Castagnoli(), b[:])
	return crc32.Update(sum, diskfile.Castagnoli(), body)
}

func (h header) encode() []byte {
	b := make([]byte, 0, batchHead)
	b = append(b, h.flags)
	b = binary.BigEndian.AppendUint32(b, uint32(h.size))
	b = binary.BigEndian.AppendUint64(b, h.end.Number)
	b = binary.BigEndian.AppendUint32(b, h.prev)
	return binary.BigEndian.AppendUint32(b, h.end.Sum)
}

// decodeHeader reads a header from the content of a sector that is right.
func decodeHeader(b []byte) (header, bool) {
	h := header{
		flags: b[0],
		size:  int(binary.BigEndian.Uint32(b[1:])),
		prev:  binary.BigEndian.Uint32(b[13:]),
		end:   Position{binary.BigEndian.Uint64(b[5:]), binary.BigEndian.Uint32(b[17:])},
	}
	return h, h.size <= MaxBatch && h.flags <= continues && (h.flags == 0 || h.size == 0)
}
