package seal

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// fuzzed returns the keyring of the golden data.
func fuzzed(f *testing.F) (k *Keyring, wrapped []byte) {
	f.Helper()
	wrapped, err := hex.DecodeString(goldenKeyring)
	if err != nil {
		f.Fatal(err)
	}
	if k, err = Unwrap(wrapped, secretOf(7)); err != nil {
		f.Fatal(err)
	}
	return k, wrapped
}

func FuzzOpen(f *testing.F) {
	k, _ := fuzzed(f)
	good, err := hex.DecodeString(goldenEnvelope)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{magic, version})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		_, err := k.Open(sealed)
		if bytes.Equal(sealed, good) != (err == nil) || err != nil && !refused(err) {
			t.Fatal(err)
		}
	})
}

func FuzzUnwrap(f *testing.F) {
	_, good := fuzzed(f)
	f.Add(good)
	f.Add([]byte{wrapVersion, 1, 1})
	f.Fuzz(func(t *testing.T, wrapped []byte) {
		_, err := Unwrap(wrapped, secretOf(6), secretOf(7))
		if bytes.Equal(wrapped, good) != (err == nil) || err != nil && !refused(err) {
			t.Fatal(err)
		}
	})
}

func FuzzReader(f *testing.F) {
	k, _ := fuzzed(f)
	want := numbers(3*testChunk + 1)
	f.Add(sealStream(f, k, secretOf(7), want, testChunk))
	f.Add([]byte(streamMagic + "\x01\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		plain, err := openStream(sealed, testChunk, secretOf(7))
		if err != nil && !refused(err) {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(want, plain) || err == nil && len(plain) != len(want) {
			t.Fatal("not what was sealed came out")
		}
	})
}
