package journal

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

const (
	sectorSize = 512
	sectorHead = 5 // kind, low bits of the batch's number
	sectorSum  = 4
	sectorRoom = sectorSize - sectorHead - sectorSum

	headKind  = 0xb1 // the head of a segment
	firstKind = 0xb2 // the first sector of a batch
	restKind  = 0xb3 // a further one
)

// sealSector completes a sector, of which kind, number and content are set.
func (s *segment) sealSector(b []byte, at int) {
	binary.BigEndian.PutUint32(b[sectorSize-sectorSum:], s.sectorSum(b, at))
}

// sectorSum is the checksum of a sector and its place.
func (s *segment) sectorSum(b []byte, at int) uint32 {
	var place [20]byte
	binary.BigEndian.PutUint64(place[0:], s.id)
	binary.BigEndian.PutUint64(place[8:], s.number)
	binary.BigEndian.PutUint32(place[16:], uint32(at))
	sum := crc32.Update(0, diskfile.Castagnoli(), place[:])
	return crc32.Update(sum, diskfile.Castagnoli(), b[:sectorSize-sectorSum])
}

// isRight reports whether a sector is as it was written there.
func (s *segment) isRight(b []byte, at int) bool {
	return binary.BigEndian.Uint32(b[sectorSize-sectorSum:]) == s.sectorSum(b, at)
}

// isZero reports whether a sector was never written.
func isZero(b []byte) bool { return [sectorSize]byte(b) == [sectorSize]byte{} }

// sectors returns how many sectors content of that size takes.
func sectors(size int) int { return (size + sectorRoom - 1) / sectorRoom }

// content is the content of a sector.
func content(b []byte) []byte { return b[sectorHead : sectorHead+sectorRoom] }

// put makes sectors of a batch, the first of which is the one at. It appends them to dst.
func (s *segment) put(dst []byte, at int, number uint64, head, body []byte) []byte {
	for kind := byte(firstKind); len(head)+len(body) > 0 || kind == firstKind; kind = restKind {
		dst = append(dst, kind)
		dst = binary.BigEndian.AppendUint32(dst, uint32(number))
		room := sectorRoom
		for _, part := range []*[]byte{&head, &body} {
			n := min(room, len(*part))
			dst = append(dst, (*part)[:n]...)
			*part, room = (*part)[n:], room-n
		}
		dst = append(dst, make([]byte, room+sectorSum)...)
		s.sealSector(dst[len(dst)-sectorSize:], at)
		at++
	}
	return dst
}

// batchOf returns the low bits of the number of the batch that a sector is of.
func batchOf(b []byte) uint32 { return binary.BigEndian.Uint32(b[1:]) }
