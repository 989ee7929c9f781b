package datagram

import (
	"encoding/binary"
	"errors"
)

// MaxSize is the largest datagram in bytes.
const MaxSize = 256

// A frame is two bytes of length and a datagram, or the two bytes 0xffff: the question whether the
// peer is still there. The answer to the question is the one byte frameHere.
const (
	frameHead = 2
	frameAsk  = 0xffff
	frameHere = 1
)

var errFrame = errors.New("a frame of datagrams is not valid")

// frame is a datagram or a question.
type frame struct {
	data []byte
	ask  bool
}

// encode appends the frame to b.
func (f frame) encode(b []byte) []byte {
	if f.ask {
		return binary.BigEndian.AppendUint16(b, frameAsk)
	}
	return append(binary.BigEndian.AppendUint16(b, uint16(len(f.data))), f.data...)
}

// decodeFrame reads the first frame of b, and returns how long it is: 0 if b ends within it. The
// data is a part of b.
func decodeFrame(b []byte) (f frame, size int, err error) {
	if len(b) < frameHead {
		return frame{}, 0, nil
	}
	n := int(binary.BigEndian.Uint16(b))
	switch size = frameHead + n; {
	case n == frameAsk:
		return frame{ask: true}, frameHead, nil
	case n > MaxSize:
		return frame{}, 0, errFrame
	case size > len(b):
		return frame{}, 0, nil
	}
	return frame{data: b[frameHead:size:size]}, size, nil
}
