package remote

import "encoding/binary"

// The calls about records. Their paths carry the version of the messages. Each is a POST of a request, answered by a reply.
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
	Dir   string // empty: all
	After string // the keys that come after this one; empty: from the first, and the node catches up before it answers
}

// ListReply is a page of keys; directories are not among them.
type ListReply struct {
	Keys    []string // in the storage's order
	More    bool     // there are others after the last of these
	Current bool     // the node has everything that was written before the question; meaningless when After was given
}

// LoadRequest asks for values.
type LoadRequest struct {
	Keys []string // in any order
}

// LoadReply has the values of the first keys of the request, of one at least: as many as a reply should carry.
type LoadReply struct {
	Values []Value // in the order of the request's keys
}

// Value is the value of a key, if it has one.
type Value struct {
	Found bool   // there is a value
	Bytes []byte // the value, which may be empty
}

// Mode says what Put does.
type Mode byte

const (
	Check     Mode = 0 // says what Keep would do, and does nothing
	Keep      Mode = 1 // stores unless a key has another value already
	Overwrite Mode = 2 // stores
)

// PutRequest asks to store records together: all of them in one write, or none.
type PutRequest struct {
	Mode    Mode     // what to do about other values
	Records []Record // one at least, each key once
}

// Outcome is what has become of the records of a PutRequest.
type Outcome byte

const (
	Stored   Outcome = 1 // or would be, for Check
	Replaced Outcome = 2 // as Stored, and one of them at least had another value before
	Same     Outcome = 3 // all were there already
	Differs  Outcome = 4 // nothing was stored: one of them at least has another value
	Refused  Outcome = 5 // nothing was stored, for the given reason
)

// PutReply tells the outcome.
type PutReply struct {
	Outcome Outcome // of all records together
	Reason  string  // of Differs and Refused
}

// Encode returns the message's bytes.
func (m ListRequest) Encode() []byte { return appendBytes(appendBytes(nil, m.Dir), m.After) }

// DecodeListRequest is the inverse of Encode.
func DecodeListRequest(b []byte) (ListRequest, error) {
	d := decoder{b: b}
	m := ListRequest{Dir: d.string(), After: d.string()}
	return m, d.end()
}

// Encode returns the message's bytes.
func (m ListReply) Encode() []byte {
	return appendKeys(appendBool(appendBool(nil, m.More), m.Current), m.Keys)
}

// DecodeListReply is the inverse of Encode.
func DecodeListReply(b []byte) (ListReply, error) {
	d := decoder{b: b}
	m := ListReply{More: d.bool(), Current: d.bool(), Keys: d.keys()}
	return m, d.end()
}

// Encode returns the message's bytes.
func (m LoadRequest) Encode() []byte { return appendKeys(nil, m.Keys) }

// DecodeLoadRequest is the inverse of Encode.
func DecodeLoadRequest(b []byte) (LoadRequest, error) {
	d := decoder{b: b}
	m := LoadRequest{Keys: d.keys()}
	return m, d.end()
}

// Encode returns the message's bytes.
func (m LoadReply) Encode() []byte {
	b := binary.AppendUvarint(nil, uint64(len(m.Values)))
	for _, v := range m.Values {
		b = appendBool(b, v.Found)
		if v.Found {
			b = appendBytes(b, v.Bytes)
		}
	}
	return b
}

// DecodeLoadReply is the inverse of Encode. The values are parts of b, not copies.
func DecodeLoadReply(b []byte) (LoadReply, error) {
	d := decoder{b: b}
	var m LoadReply
	for range d.count() {
		v := Value{Found: d.bool()}
		if v.Found {
			v.Bytes = d.bytes()
		}
		m.Values = append(m.Values, v)
	}
	return m, d.end()
}

// Encode returns the message's bytes.
func (m PutRequest) Encode() []byte {
	b := binary.AppendUvarint([]byte{byte(m.Mode)}, uint64(len(m.Records)))
	for _, r := range m.Records {
		b = appendBytes(appendBytes(b, r.Key), r.Value)
	}
	return b
}

// DecodePutRequest is the inverse of Encode. A mode that is not known is malformed. The values are parts of b, not copies.
func DecodePutRequest(b []byte) (PutRequest, error) {
	d := decoder{b: b}
	mode := d.uint()
	d.bad = d.bad || mode > uint64(Overwrite)
	m := PutRequest{Mode: Mode(mode)}
	for range d.count() {
		m.Records = append(m.Records, Record{Key: d.string(), Value: d.bytes()})
	}
	return m, d.end()
}

// Encode returns the message's bytes.
func (m PutReply) Encode() []byte { return appendBytes([]byte{byte(m.Outcome)}, m.Reason) }

// DecodePutReply is the inverse of Encode. An outcome that is not known is malformed.
func DecodePutReply(b []byte) (PutReply, error) {
	d := decoder{b: b}
	outcome := d.uint()
	d.bad = d.bad || outcome < uint64(Stored) || outcome > uint64(Refused)
	m := PutReply{Outcome: Outcome(outcome), Reason: d.string()}
	return m, d.end()
}

func appendKeys(b []byte, keys []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(keys)))
	for _, k := range keys {
		b = appendBytes(b, k)
	}
	return b
}

func (d *decoder) keys() []string {
	var keys []string
	for range d.count() {
		keys = append(keys, d.string())
	}
	return keys
}
