package seal

import (
	"bytes"
	"io"
	"testing"
)

func BenchmarkStreamSeal(b *testing.B) {
	k, secret := NewKeyring(), Secret{1}
	wrapped, err := k.Wrap(secret)
	if err != nil {
		b.Fatal(err)
	}
	plain := make([]byte, 16<<20)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		w, err := NewWriter(io.Discard, k, wrapped)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(plain); err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStreamOpen(b *testing.B) {
	k, secret := NewKeyring(), Secret{1}
	sealed := sealStream(b, k, secret, make([]byte, 16<<20), chunkSize)
	buf := make([]byte, 32<<10)
	b.SetBytes(16 << 20)
	for b.Loop() {
		r, err := NewReader(bytes.NewReader(sealed), secret)
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, buf); err != nil || n != 16<<20 {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	k, plain := NewKeyring(), make([]byte, 4<<10)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		k.Seal(plain)
	}
}

func BenchmarkOpen(b *testing.B) {
	k := NewKeyring()
	sealed := k.Seal(make([]byte, 4<<10))
	b.SetBytes(4 << 10)
	for b.Loop() {
		if _, err := k.Open(sealed); err != nil {
			b.Fatal(err)
		}
	}
}
