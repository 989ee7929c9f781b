package deathnotice

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/codec"
)

func sample() *Notice {
	return &Notice{Addrs: []string{"a:1", "b:2"}, ServerName: "n", Protocol: "p", Time: 5, CA: []byte("ca"), Cert: []byte("cert"), Key: bytes.Repeat([]byte{1}, 32)}
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
		_, err := Decode(b)
		if unknown := name == "empty" || name == "version"; err == nil || strings.Contains(err.Error(), "is not known to this version") != unknown || errors.Is(err, codec.ErrMalformed) == unknown {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample().Encode())
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(n.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(n, again); diff != "" {
			t.Error(diff)
		}
		n.config() // must not panic
	})
}
