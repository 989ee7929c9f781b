package codec

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// old is a message in its first version, and grown the same message with a field more.
type old struct{ A, B uint64 }

type grown struct {
	A, B uint64
	C    string
}

func (m old) encode() []byte {
	var e Encoder
	e.Uint(m.A)
	e.Uint(m.B)
	return e.B
}

func decodeOld(b []byte, open bool) (old, error) {
	d := Decoder{B: b}
	m := old{A: d.Uint(), B: d.Uint()}
	if open {
		return m, d.EndOpen()
	}
	return m, d.End()
}

func (m grown) encode() []byte {
	e := Encoder{B: old{m.A, m.B}.encode()}
	e.String(m.C)
	return e.B
}

func decodeGrown(b []byte) (grown, error) {
	d := Decoder{B: b}
	m := grown{A: d.Uint(), B: d.Uint()}
	if d.More() {
		m.C = d.String()
	}
	return m, d.End()
}

// A field that was added at the end is zero when it is absent. An older reader refuses it, unless
// the message is open.
func TestMessageGrows(t *testing.T) {
	is, was := grown{1, 300, "c"}, old{1, 300}
	got, err := decodeGrown(was.encode())
	if diff := cmp.Diff(grown{A: 1, B: 300}, got); diff != "" || err != nil {
		t.Errorf("an older message: %v\n%s", err, diff)
	}
	got, err = decodeGrown(is.encode())
	if diff := cmp.Diff(is, got); diff != "" || err != nil {
		t.Errorf("its own message: %v\n%s", err, diff)
	}
	if _, err := decodeOld(is.encode(), false); !errors.Is(err, ErrMalformed) {
		t.Errorf("an older reader of a closed message: %v", err)
	}
	first, err := decodeOld(is.encode(), true)
	if diff := cmp.Diff(was, first); diff != "" || err != nil {
		t.Errorf("an older reader of an open message: %v\n%s", err, diff)
	}
	for _, cut := range []int{0, 1, 2} {
		if _, err := decodeOld(is.encode()[:cut], true); !errors.Is(err, ErrMalformed) {
			t.Errorf("an open message that was cut at %d: %v", cut, err)
		}
		if _, err := decodeGrown(is.encode()[:cut]); !errors.Is(err, ErrMalformed) {
			t.Errorf("a message that was cut at %d: %v", cut, err)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, test := range []struct {
		b    []byte
		want error // nil: the version is known
	}{
		{[]byte{1}, nil},
		{[]byte{2}, nil},
		{[]byte{0}, &VersionError{0, 2}},
		{[]byte{3, 1, 2, 3}, &VersionError{3, 2}},
		{nil, ErrMalformed},
	} {
		d := Decoder{B: test.b}
		v := d.Version(2)
		err := d.End()
		if test.want == nil && (err != nil || v != test.b[0]) || test.want != nil && (err == nil || v != 0) {
			t.Errorf("%v is version %d: %v", test.b, v, err)
		}
		if diff := cmp.Diff(errorText(test.want), errorText(err)); diff != "" {
			t.Errorf("%v: %s", test.b, diff)
		}
		if test.want != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%v: %v is not malformed", test.b, err)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A reader skips unknown records of odd kinds, refuses those of even kinds, and finds the next
// record even if a known one has grown.
func TestRecords(t *testing.T) {
	read := func(b []byte) (got []string, err error) {
		for d := (Decoder{B: b}); d.More(); err = d.EndOpen() {
			kind, body := d.Record()
			if kind != 2 {
				d.Unknown(kind)
				continue
			}
			got = append(got, body.String())
			if err := body.EndOpen(); err != nil {
				return nil, err
			}
		}
		return got, err
	}
	record := func(kind uint64, text string) []byte {
		var e Encoder
		e.Record(kind, func(e *Encoder) { e.String(text); e.Uint(300) })
		return e.B
	}
	for _, test := range []struct {
		name    string
		kinds   []uint64
		want    []string
		refused bool
	}{
		{"known", []uint64{2, 2}, []string{"a", "b"}, false},
		{"an odd kind", []uint64{2, 7, 2}, []string{"a", "c"}, false},
		{"an even kind", []uint64{2, 8, 2}, nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b []byte
			for i, kind := range test.kinds {
				b = append(b, record(kind, string(rune('a'+i)))...)
			}
			got, err := read(b)
			if test.refused {
				if !errors.Is(err, ErrMalformed) {
					t.Errorf("got %q, %v", got, err)
				}
				return
			}
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
				t.Errorf("%v\n%s", err, diff)
			}
			if _, err := read(b[:len(b)-1]); !errors.Is(err, ErrMalformed) {
				t.Errorf("the last record is cut: %v", err)
			}
		})
	}
	bad := Decoder{Bad: true}
	if kind, body := bad.Record(); kind != 0 || body.EndOpen() == nil || bad.More() {
		t.Error("a fault is forgotten in a nested message")
	}
}

// What is nested comes back, and nothing outside of it.
func FuzzNest(f *testing.F) {
	f.Add(uint64(3), []byte("body"), []byte("rest"))
	f.Fuzz(func(t *testing.T, kind uint64, body, rest []byte) {
		var e Encoder
		e.Record(kind, func(e *Encoder) { e.B = append(e.B, body...) })
		d := Decoder{B: append(e.B, rest...)}
		k, inner := d.Record()
		if k != kind || string(inner.B) != string(body) || string(d.B) != string(rest) || d.Bad || inner.Bad {
			t.Errorf("got kind %d, body %x, rest %x", k, inner.B, d.B)
		}
	})
}
