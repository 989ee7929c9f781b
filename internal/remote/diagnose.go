package remote

import (
	"context"
	"errors"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/diagnosis"
)

// CallDiagnose takes a DiagnoseRequest. Its reply is a DiagnoseReply.
const CallDiagnose = "/1/diagnose"

// DiagnoseRequest asks for the report of one node. Any node takes it, also one that is in no
// cluster yet, and passes it on.
type DiagnoseRequest struct {
	// Node is the node's ID. Empty: the node that takes the request.
	Node string

	// Stacks asks for the stacks of its goroutines too, and for the newest part of its log.
	Stacks bool
}

// Encode returns the message's bytes.
func (m DiagnoseRequest) Encode() []byte {
	var e codec.Encoder
	e.String(m.Node)
	e.Bool(m.Stacks)
	return e.B
}

// DecodeDiagnoseRequest is the inverse of Encode.
func DecodeDiagnoseRequest(b []byte) (DiagnoseRequest, error) {
	d := codec.Decoder{B: b}
	m := DiagnoseRequest{Node: d.String(), Stacks: d.Bool()}
	return m, d.End()
}

// DiagnoseReply answers a DiagnoseRequest. It has at most two MiB.
type DiagnoseReply struct {
	// Report is a diagnosis.Report in JSON. Empty: the node did not answer.
	Report []byte

	// Stacks is text: what the goroutines do. Empty: nobody asked for it.
	Stacks []byte

	// Why is why the node did not answer. Empty: it did.
	Why string
}

// Encode returns the message's bytes.
func (m DiagnoseReply) Encode() []byte {
	var e codec.Encoder
	e.Bytes(m.Report)
	e.Bytes(m.Stacks)
	e.String(m.Why)
	return e.B
}

// DecodeDiagnoseReply is the inverse of Encode. Report and Stacks are parts of b, not copies.
func DecodeDiagnoseReply(b []byte) (DiagnoseReply, error) {
	d := codec.Decoder{B: b}
	m := DiagnoseReply{Report: d.Bytes(), Stacks: d.Bytes(), Why: d.String()}
	return m, d.End()
}

// Diagnose returns what a node says of itself, and the stacks of its goroutines if q asks for them.
// The error says which node did not answer, and why.
func (c *Client) Diagnose(ctx context.Context, q DiagnoseRequest) (report diagnosis.Report, stacks []byte, err error) {
	body, err := c.call(ctx, CallDiagnose, q.Encode())
	if err != nil {
		return report, nil, err
	}
	reply, err := DecodeDiagnoseReply(body)
	switch {
	case err != nil:
		return report, nil, err
	case reply.Why != "":
		return report, nil, errors.New(reply.Why)
	}
	report, err = diagnosis.Decode(reply.Report)
	return report, reply.Stacks, err
}
