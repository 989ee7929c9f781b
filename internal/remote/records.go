package remote

import "github.com/flotilla-ha/flotilla/internal/codec"

// Paths of the RPCs about records. The comment names request and reply.
const (
	CallList = "/1/records/list" // ListRequest, ListReply
	CallLoad = "/1/records/load" // LoadRequest, LoadReply
	CallPut  = "/1/records/put"  // PutRequest, PutReply
)

// Record is one key of the cluster's storage, and its value.
type Record struct {
	Key   string // in its clean form
	Value []byte // at most flotilla.MaxValue bytes
}

// ListRequest asks for keys below a directory, in the storage's order.
type ListRequest struct {
	Dir string // empty: all

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

// ListReply is a page of keys; directories are not among them.
type ListReply struct {
	Keys    []string // in the storage's order
	More    bool     // there are more keys behind the last of these
	Current bool     // the node had everything written before the first request; false with After
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
	Keys []string // in any order
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

// LoadReply has the values of the first keys of the request: at least one, and as many as a reply
// should carry.
type LoadReply struct {
	Values []Value // in the order of the request's keys
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
	Found bool   // there is a value
	Bytes []byte // the value, which may be empty
}

// Mode says what a PutRequest does.
type Mode byte

const (
	Check     Mode = 0 // reports what Keep would do, and stores nothing
	Keep      Mode = 1 // stores, unless a key has another value already
	Overwrite Mode = 2 // stores in any case
)

// PutRequest asks to store records together: all of them in one write, or none.
type PutRequest struct {
	Mode    Mode     // what to do about existing values
	Records []Record // at least one, each key once
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
	Stored   Outcome = 1 // they were stored; for Check: they would be
	Replaced Outcome = 2 // as Stored, and at least one had another value before
	Same     Outcome = 3 // all were there already
	Differs  Outcome = 4 // nothing was stored: at least one has another value
	Refused  Outcome = 5 // nothing was stored, for the given reason
)

// PutReply answers a PutRequest.
type PutReply struct {
	Outcome Outcome // of all records together
	Reason  string  // of Differs and Refused
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
