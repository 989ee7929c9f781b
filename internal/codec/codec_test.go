package codec

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoundTrip(t *testing.T) {
	e := Encoder{B: []byte{9}}
	e.Byte(7)
	e.Uint(1 << 63)
	e.Int(-5)
	e.Bytes([]byte{1, 2})
	e.String("text")
	e.Bool(true)
	e.Bool(false)
	e.Uint(2) // a list
	e.String("")
	e.String("x")
	d := Decoder{B: e.B}
	got := []any{d.Byte(), d.Byte(), d.Uint(), d.Int(), d.Bytes(), d.String(), d.Bool(), d.Bool(), d.Count(), d.String(), d.String()}
	want := []any{byte(9), byte(7), uint64(1 << 63), int64(-5), []byte{1, 2}, "text", true, false, 2, "", "x"}
	if diff := cmp.Diff(want, got); diff != "" || d.End() != nil {
		t.Errorf("%v\n%s", d.End(), diff)
	}
	for cut := range e.B {
		d := Decoder{B: e.B[:cut]}
		_, _, _, _, _, _, _, _, _, _, _ = d.Byte(), d.Byte(), d.Uint(), d.Int(), d.Bytes(), d.String(), d.Bool(), d.Bool(), d.Count(), d.String(), d.String()
		if !errors.Is(d.End(), ErrMalformed) {
			t.Errorf("cut at %d it is accepted", cut)
		}
	}
}

// Whatever the bytes are, nothing panics, and no list is longer than what is left.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3}, []byte{200, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, ops, b []byte) {
		d := Decoder{B: b}
		for _, op := range ops {
			before := len(d.B)
			switch op % 11 {
			case 0:
				d.Byte()
			case 1:
				d.Uint()
			case 2:
				d.Int()
			case 3:
				if v := d.Bytes(); !bytes.Contains(b, v) {
					t.Error("bytes from elsewhere")
				}
			case 4:
				_ = d.String()
			case 5:
				d.Bool()
			case 6:
				if n := d.Count(); n > before {
					t.Errorf("a list of %d in %d bytes", n, before)
				}
			case 7:
				d.Version(2)
			case 8:
				if n := d.Nest(); !bytes.Contains(b, n.B) || n.Bad != d.Bad {
					t.Error("a nested message from elsewhere")
				}
			case 9:
				kind, _ := d.Record()
				d.Unknown(kind)
			case 10:
				if d.More() != (d.End() != nil && d.EndOpen() == nil) {
					t.Error("More and End disagree")
				}
			}
			if len(d.B) > before {
				t.Error("more is left than there was")
			}
		}
	})
}
