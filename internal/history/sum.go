package history

import (
	"encoding/binary"
	"hash/crc32"
	"hash/crc64"

	"github.com/hashicorp/raft"
)

// Sum is a checksum of the content of all entries of a log up to one of them. It is zero for no
// entries.
type Sum uint64

// Next returns the sum of the log after e is appended to it.
func (s Sum) Next(e *raft.Log) Sum {
	if e.Type != raft.LogCommand && e.Type != raft.LogConfiguration {
		return s
	}
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	b := make([]byte, 0, 48)
	for _, v := range []uint64{uint64(s), e.Index, e.Term, uint64(e.Type), uint64(len(e.Data))} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(e.Data, castagnoli))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(e.Extensions, castagnoli))
	return Sum(crc64.Checksum(b, crc64.MakeTable(crc64.ECMA)))
}
