package will

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sample() *Will {
	return &Will{Addrs: []string{"a:1", "b:2"}, ServerName: "n", Protocol: "p", Time: 5, CA: []byte("ca"), Cert: []byte("cert"), Key: bytes.Repeat([]byte{1}, 32)}
}

func TestDecode(t *testing.T) {
	got, err := Decode(sample().Encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), got); diff != "" {
		t.Error(diff)
	}
	short := sample()
	short.Key = short.Key[:31]
	for name, b := range map[string][]byte{"empty": nil, "version": {9}, "cut": sample().Encode()[:20], "more": append(sample().Encode(), 0), "key": short.Encode()} {
		if _, err := Decode(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample().Encode())
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(w.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(w, again); diff != "" {
			t.Error(diff)
		}
		w.config() // must not panic
	})
}
