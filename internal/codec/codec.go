// Package codec writes and reads the small binary messages of the project: what is in the log, in snapshots, in notes and in calls. All of
// it is authenticated before it is read.
package codec

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed is the one complaint of Decoder: the bytes are authenticated before they are decoded, so details help nobody.
var ErrMalformed = errors.New("malformed encoding")

// Encoder appends to B: integers as varints, strings and byte slices behind their lengths.
type Encoder struct {
	B []byte // what has been written; it may begin with something else
}

// Byte appends one byte.
func (e *Encoder) Byte(v byte) { e.B = append(e.B, v) }

// Uint appends an unsigned integer.
func (e *Encoder) Uint(v uint64) { e.B = binary.AppendUvarint(e.B, v) }

// Int appends a signed integer.
func (e *Encoder) Int(v int64) { e.B = binary.AppendVarint(e.B, v) }

// Bytes appends bytes and how many they are.
func (e *Encoder) Bytes(v []byte) { e.Uint(uint64(len(v))); e.B = append(e.B, v...) }

// String appends a text and its length.
func (e *Encoder) String(v string) { e.Uint(uint64(len(v))); e.B = append(e.B, v...) }

// Bool appends a yes or a no.
func (e *Encoder) Bool(v bool) {
	if v {
		e.Byte(1)
		return
	}
	e.Byte(0)
}

// Decoder reads what Encoder wrote. After the first fault every read gives a zero value, Bad is true, and End
// tells of it. B is what is left.
type Decoder struct {
	B   []byte // what is left to read
	Bad bool   // a read failed, or the caller found a value wrong
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

// Uint reads an unsigned integer.
func (d *Decoder) Uint() uint64 {
	v, n := binary.Uvarint(d.B)
	if n <= 0 {
		d.Bad, d.B = true, nil
		return 0
	}
	d.B = d.B[n:]
	return v
}

// Int reads a signed integer.
func (d *Decoder) Int() int64 {
	v, n := binary.Varint(d.B)
	if n <= 0 {
		d.Bad, d.B = true, nil
		return 0
	}
	d.B = d.B[n:]
	return v
}

// Bytes returns a part of the Decoder's input, not a copy.
func (d *Decoder) Bytes() []byte {
	n := d.Uint()
	if d.Bad || n > uint64(len(d.B)) {
		d.Bad, d.B = true, nil
		return nil
	}
	v := d.B[:n:n]
	d.B = d.B[n:]
	return v
}

// String reads a text.
func (d *Decoder) String() string { return string(d.Bytes()) }

// Bool reads a yes or a no.
func (d *Decoder) Bool() bool {
	v := d.Byte()
	d.Bad = d.Bad || v > 1
	return v == 1
}

// Count reads the length of a list whose elements take at least one byte each.
func (d *Decoder) Count() int {
	n := d.Uint()
	if d.Bad || n > uint64(len(d.B)) {
		d.Bad, d.B = true, nil
		return 0
	}
	return int(n)
}

// End returns an error if a read failed or bytes are left over.
func (d *Decoder) End() error {
	if d.Bad || len(d.B) > 0 {
		return ErrMalformed
	}
	return nil
}
