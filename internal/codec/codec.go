package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// ErrMalformed is the error of [Decoder.End] for all faults but unknown versions. It has no
// details, because the bytes were authenticated before: a fault means that the program that wrote
// them has one.
var ErrMalformed = errors.New("malformed encoding")

// VersionError says that a message has a format that this program does not know.
type VersionError struct {
	// Got is the version of the message.
	Got byte

	// Newest is the newest version that this program knows.
	Newest byte
}

// Error names both versions.
func (e *VersionError) Error() string {
	return fmt.Sprintf("version %d of a format is not known, the newest known one is %d", e.Got, e.Newest)
}

// Is reports whether target is ErrMalformed, so that callers need not distinguish the two.
func (e *VersionError) Is(target error) bool { return target == ErrMalformed }

// Skippable reports whether a reader that does not know a kind of record may skip the record. Odd
// kinds are skippable.
func Skippable(kind uint64) bool { return kind&1 == 1 }

// Encoder appends to B. It writes integers as varints, and strings and byte slices behind their
// lengths. The zero Encoder is ready.
type Encoder struct {
	// B is what has been written. The caller may begin with bytes of its own.
	B []byte
}

// Grow makes room for n more bytes, so that appending them allocates nothing.
func (e *Encoder) Grow(n int) { e.B = slices.Grow(e.B, n) }

// Byte appends one byte.
func (e *Encoder) Byte(v byte) { e.B = append(e.B, v) }

// Uint appends an unsigned integer.
func (e *Encoder) Uint(v uint64) { e.B = binary.AppendUvarint(e.B, v) }

// Int appends a signed integer.
func (e *Encoder) Int(v int64) { e.B = binary.AppendVarint(e.B, v) }

// Bytes appends the length of v, and v.
func (e *Encoder) Bytes(v []byte) { e.Uint(uint64(len(v))); e.B = append(e.B, v...) }

// String appends the length of v, and v.
func (e *Encoder) String(v string) { e.Uint(uint64(len(v))); e.B = append(e.B, v...) }

// Bool appends the byte 1 or 0.
func (e *Encoder) Bool(v bool) {
	if v {
		e.Byte(1)
		return
	}
	e.Byte(0)
}

// Nest appends what f writes, behind its length. A reader finds the end even if a later version of
// f writes more.
func (e *Encoder) Nest(f func(*Encoder)) {
	var inner Encoder
	f(&inner)
	e.Bytes(inner.B)
}

// Record appends a record of some kind: the kind, and what f writes, nested.
func (e *Encoder) Record(kind uint64, f func(*Encoder)) {
	e.Uint(kind)
	e.Nest(f)
}

// Decoder reads what an Encoder wrote. After the first fault every read returns a zero value, Bad
// is true, and End returns an error.
type Decoder struct {
	// B is what is left to read.
	B []byte

	// Bad says that a read failed. The caller sets it when it finds a value wrong.
	Bad bool

	version *VersionError // why it is bad; nil: it is malformed
}

// Byte reads one byte.
func (d *Decoder) Byte() byte {
	if len(d.B) == 0 {
		d.Bad = true
		return 0
	}
	v := d.B[0]
	d.B = d.B[1:]
	return v
}

// Version reads the version of a format, from 1 to newest. For any other version End returns a
// [VersionError].
func (d *Decoder) Version(newest byte) byte {
	v := d.Byte()
	if !d.Bad && (v == 0 || v > newest) {
		d.fail()
		d.version = &VersionError{Got: v, Newest: newest}
		return 0
	}
	return v
}

// Uint reads an unsigned integer.
func (d *Decoder) Uint() uint64 {
	v, n := binary.Uvarint(d.B)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.B = d.B[n:]
	return v
}

// Int reads a signed integer.
func (d *Decoder) Int() int64 {
	v, n := binary.Varint(d.B)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.B = d.B[n:]
	return v
}

// Bytes reads bytes behind their length. It returns a part of the Decoder's input, not a copy.
func (d *Decoder) Bytes() []byte {
	n := d.Uint()
	if d.Bad || n > uint64(len(d.B)) {
		d.fail()
		return nil
	}
	v := d.B[:n:n]
	d.B = d.B[n:]
	return v
}

// String reads a text.
func (d *Decoder) String() string { return string(d.Bytes()) }

// Bool reads a boolean. A byte other than 0 and 1 is a fault.
func (d *Decoder) Bool() bool {
	v := d.Byte()
	d.Bad = d.Bad || v > 1
	return v == 1
}

// Count reads the length of a list whose elements take at least one byte each. It is a fault if not
// that many bytes are left, so the caller may allocate as many elements.
func (d *Decoder) Count() int {
	n := d.Uint()
	if d.Bad || n > uint64(len(d.B)) {
		d.fail()
		return 0
	}
	return int(n)
}

// Nest returns a Decoder for what Encoder.Nest wrote. The caller must also call End or EndOpen of
// the returned Decoder.
func (d *Decoder) Nest() *Decoder {
	b := d.Bytes()
	return &Decoder{B: b, Bad: d.Bad}
}

// Record reads the kind of a record, and returns a Decoder for its body, as Nest does. A caller
// that does not know the kind calls Unknown.
func (d *Decoder) Record() (kind uint64, body *Decoder) {
	kind = d.Uint()
	return kind, d.Nest()
}

// Unknown reports to the Decoder that the caller does not know a kind of record. That is a fault
// unless the kind is [Skippable].
func (d *Decoder) Unknown(kind uint64) { d.Bad = d.Bad || !Skippable(kind) }

// More reports whether anything is left to read. It is false after a fault. A field that a later
// version has added at the end is read only if there is more:
//
//	if d.More() {
//		m.Added = d.Uint()
//	}
func (d *Decoder) More() bool { return !d.Bad && len(d.B) > 0 }

// End returns an error if a read failed or bytes are left over.
func (d *Decoder) End() error {
	if !d.Bad && len(d.B) > 0 {
		return ErrMalformed
	}
	return d.EndOpen()
}

// EndOpen returns an error if a read failed. Bytes that are left over are fields of a later
// version, which this program can do without.
func (d *Decoder) EndOpen() error {
	switch {
	case d.version != nil:
		return d.version
	case d.Bad:
		return ErrMalformed
	}
	return nil
}

// fail makes every later read fail.
func (d *Decoder) fail() { d.Bad, d.B = true, nil }
