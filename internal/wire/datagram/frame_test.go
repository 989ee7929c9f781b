package datagram

import (
	"bytes"
	"slices"
	"testing"
)

func FuzzFrame(f *testing.F) {
	f.Add(frame{data: []byte("datagram")}.encode(nil))
	f.Add(append(frame{ask: true}.encode(nil), 0, 0))
	f.Add([]byte{1, 0, 1})
	f.Add([]byte{1, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, size, err := decodeFrame(b)
		switch {
		case err != nil:
			if size != 0 || len(b) < frameHead {
				t.Fatal(size, err)
			}
		case size == 0:
			longer := append(slices.Clone(b), make([]byte, frameHead+MaxSize)...)
			if _, size, err := decodeFrame(longer); size <= len(b) && err == nil {
				t.Fatalf("%x is complete after %d bytes", b, size)
			}
		default:
			if len(fr.data) > MaxSize || !bytes.Equal(b[:size], fr.encode(nil)) {
				t.Fatalf("%x is the frame %+v", b[:size], fr)
			}
			if _, size, _ := decodeFrame(b[:size-1]); size != 0 {
				t.Fatalf("%x is complete without its end", b)
			}
		}
	})
}
