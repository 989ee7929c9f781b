package remote

import "github.com/flotilla-ha/flotilla/internal/codec"

// These are the paths of the RPCs about records.
const (
	// CallList takes a ListRequest. Its reply is a ListReply.
	CallList = "/1/records/list"

	// CallLoad takes a LoadRequest. Its reply is a LoadReply.
	CallLoad = "/1/records/load"

	// CallPut takes a PutRequest. Its reply is a PutReply.
	CallPut = "/1/records/put"
)

// Record is one key of the cluster's storage, and its value.
type Record struct {
	// Key is the key in its clean form.
	Key string

	// Value is the value, at most flotilla.MaxValue bytes.
	Value []byte
}

// ListRequest asks for keys below a directory, in the storage's order.
type ListRequest struct {
	// Dir is the directory. Empty: all keys.
	Dir string

	// After is the last key of the page before. Empty: the first page, and the node catches up
	// before it answers.
	After string
}

// Encode returns the message's bytes.
func (m ListRequest) Encode() []byte {
	var e codec.Encoder
	e.String(m.Dir)
	e.String(m.After)
	return e.B
}

// DecodeListRequest is the inverse of Encode.
func DecodeListRequest(b []byte) (ListRequest, error) {
	d := codec.Decoder{B: b}
	m := ListRequest{Dir: d.String(), After: d.String()}
	return m, d.End()
}

// ListReply is a page of keys. Directories are not among them.
type ListReply struct {
	// Keys are in the storage's order.
	Keys []string

	// More says that there are more keys behind the last of these.
	More bool

	// Current says that the node had everything written before the first request. It is false in
	// a later page.
	Current bool
}

// Encode returns the message's bytes.
func (m ListReply) Encode() []byte {
	var e codec.Encoder
	e.Bool(m.More)
	e.Bool(m.Current)
	encodeKeys(&e, m.Keys)
	return e.B
}

// DecodeListReply is the inverse of Encode.
func DecodeListReply(b []byte) (ListReply, error) {
	d := codec.Decoder{B: b}
	m := ListReply{More: d.Bool(), Current: d.Bool(), Keys: decodeKeys(&d)}
	return m, d.End()
}

// LoadRequest asks for values.
type LoadRequest struct {
	// Keys may be in any order.
	Keys []string
}

// Encode returns the message's bytes.
func (m LoadRequest) Encode() []byte {
	var e codec.Encoder
	encodeKeys(&e, m.Keys)
	return e.B
}

// DecodeLoadRequest is the inverse of Encode.
func DecodeLoadRequest(b []byte) (LoadRequest, error) {
	d := codec.Decoder{B: b}
	m := LoadRequest{Keys: decodeKeys(&d)}
	return m, d.End()
}

// LoadReply has the values of the first keys of the request. It has at least one value, and as many
// as one reply should carry.
type LoadReply struct {
	// Values are in the order of the request's keys.
	Values []Value
}

// Encode returns the message's bytes.
func (m LoadReply) Encode() []byte {
	var e codec.Encoder
	e.Uint(uint64(len(m.Values)))
	for _, v := range m.Values {
		e.Bool(v.Found)
		if v.Found {
			e.Bytes(v.Bytes)
		}
	}
	return e.B
}

// DecodeLoadReply is the inverse of Encode. The values are parts of b, not copies.
func DecodeLoadReply(b []byte) (LoadReply, error) {
	d := codec.Decoder{B: b}
	var m LoadReply
	for range d.Count() {
		v := Value{Found: d.Bool()}
		if v.Found {
			v.Bytes = d.Bytes()
		}
		m.Values = append(m.Values, v)
	}
	return m, d.End()
}

// Value is the value of a key, if it has one.
type Value struct {
	// Found says that there is a value.
	Found bool

	// Bytes is the value, which may be empty.
	Bytes []byte
}

// Mode says what a PutRequest does.
type Mode byte

const (
	// Check reports what Keep would do, and stores nothing.
	Check Mode = 0

	// Keep stores the records unless a key has another value already.
	Keep Mode = 1

	// Overwrite stores the records in any case.
	Overwrite Mode = 2
)

// PutRequest asks to store records together: all of them in one write, or none.
type PutRequest struct {
	// Mode says what to do about existing values.
	Mode Mode

	// Records has at least one record, and each key once.
	Records []Record
}

// Encode returns the message's bytes.
func (m PutRequest) Encode() []byte {
	var e codec.Encoder
	e.Byte(byte(m.Mode))
	e.Uint(uint64(len(m.Records)))
	for _, r := range m.Records {
		e.String(r.Key)
		e.Bytes(r.Value)
	}
	return e.B
}

// DecodePutRequest is the inverse of Encode. An unknown mode is malformed. The values are parts of
// b, not copies.
func DecodePutRequest(b []byte) (PutRequest, error) {
	d := codec.Decoder{B: b}
	mode := d.Byte()
	d.Bad = d.Bad || mode > byte(Overwrite)
	m := PutRequest{Mode: Mode(mode)}
	for range d.Count() {
		m.Records = append(m.Records, Record{Key: d.String(), Value: d.Bytes()})
	}
	return m, d.End()
}

// Outcome is what was done with the records of a PutRequest.
type Outcome byte

const (
	// Stored says that the records were stored. As an answer to Check, that they would be.
	Stored Outcome = 1

	// Replaced is Stored for records of which at least one had another value before.
	Replaced Outcome = 2

	// Same says that all records were there already.
	Same Outcome = 3

	// Differs says that nothing was stored, because at least one key has another value.
	Differs Outcome = 4

	// Refused says that nothing was stored, for the given reason.
	Refused Outcome = 5
)

// PutReply answers a PutRequest.
type PutReply struct {
	// Outcome is that of all records together.
	Outcome Outcome

	// Reason is set for Differs and Refused.
	Reason string
}

// Encode returns the message's bytes.
func (m PutReply) Encode() []byte {
	var e codec.Encoder
	e.Byte(byte(m.Outcome))
	e.String(m.Reason)
	return e.B
}

// DecodePutReply is the inverse of Encode. An unknown outcome is malformed.
func DecodePutReply(b []byte) (PutReply, error) {
	d := codec.Decoder{B: b}
	outcome := d.Byte()
	d.Bad = d.Bad || outcome < byte(Stored) || outcome > byte(Refused)
	m := PutReply{Outcome: Outcome(outcome), Reason: d.String()}
	return m, d.End()
}

func encodeKeys(e *codec.Encoder, keys []string) {
	e.Uint(uint64(len(keys)))
	for _, k := range keys {
		e.String(k)
	}
}

func decodeKeys(d *codec.Decoder) []string {
	var keys []string
	for range d.Count() {
		keys = append(keys, d.String())
	}
	return keys
}
