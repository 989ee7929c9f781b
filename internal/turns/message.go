package turns

import "github.com/flotilla-ha/flotilla/internal/codec"

// Request is the body of rpc.Turn: a node asks for its turn, or says that it is over.
type Request struct {
	// Name is what the turn is at.
	Name string

	// Number tells the node's turns apart.
	Number uint64

	// Done says that the turn is over.
	Done bool
}

// Encode returns the wire form of m.
func (m Request) Encode() []byte {
	var e codec.Encoder
	e.String(m.Name)
	e.Uint(m.Number)
	e.Bool(m.Done)
	return e.B
}

// DecodeRequest is the inverse of Encode.
func DecodeRequest(b []byte) (Request, error) {
	d := codec.Decoder{B: b}
	m := Request{Name: d.String(), Number: d.Uint(), Done: d.Bool()}
	return m, d.End()
}

// Reply is the answer to rpc.Turn.
type Reply struct {
	// Index is what the leader has applied when the turn begins.
	Index uint64
}

// Encode returns the wire form of m.
func (m Reply) Encode() []byte {
	var e codec.Encoder
	e.Uint(m.Index)
	return e.B
}

// DecodeReply is the inverse of Encode.
func DecodeReply(b []byte) (Reply, error) {
	d := codec.Decoder{B: b}
	m := Reply{Index: d.Uint()}
	return m, d.End()
}
