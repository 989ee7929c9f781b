package remote

import (
	"context"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// CallRotate takes a RotateRequest. Its reply is a RotateReply.
const CallRotate = "/1/rotate"

// What a RotateRequest replaces.
const (
	RotateSecret  = "secret"
	RotateData    = "data"
	RotateTickets = "tickets"
)

// RotateRequest asks for the next step of a replacement.
type RotateRequest struct {
	// What is RotateSecret, RotateData or RotateTickets.
	What string

	// Have are the IDs of the secrets that the operator has, for RotateSecret.
	Have []seal.KeyID

	// Begun is what the reply before said. 0: there was none.
	Begun uint64
}

// Encode returns the message's bytes.
func (m RotateRequest) Encode() []byte {
	var e codec.Encoder
	e.String(m.What)
	e.Uint(uint64(len(m.Have)))
	for _, id := range m.Have {
		e.Bytes(id[:])
	}
	e.Uint(m.Begun)
	return e.B
}

// DecodeRotateRequest is the inverse of Encode.
func DecodeRotateRequest(b []byte) (RotateRequest, error) {
	d := codec.Decoder{B: b}
	m := RotateRequest{What: d.String()}
	for range d.Count() {
		var id seal.KeyID
		b := d.Bytes()
		d.Bad = d.Bad || len(b) != len(id)
		copy(id[:], b)
		m.Have = append(m.Have, id)
	}
	m.Begun = d.Uint()
	return m, d.End()
}

// RotateReply says how far a replacement is. The caller asks again until it is done or refused.
type RotateReply struct {
	// Done says that nothing is left to do.
	Done bool

	// Refused says that the replacement cannot go on, and Doing why.
	Refused bool

	// Step counts from 1 to Steps.
	Step, Steps int

	// Doing is what the cluster does now.
	Doing string

	// Begun is for the next request.
	Begun uint64

	// Waiting has one line for each node that the step waits for.
	Waiting []string
}

// Encode returns the message's bytes.
func (m RotateReply) Encode() []byte {
	var e codec.Encoder
	e.Bool(m.Done)
	e.Bool(m.Refused)
	e.Uint(uint64(m.Step))
	e.Uint(uint64(m.Steps))
	e.String(m.Doing)
	e.Uint(m.Begun)
	e.Uint(uint64(len(m.Waiting)))
	for _, w := range m.Waiting {
		e.String(w)
	}
	return e.B
}

// DecodeRotateReply is the inverse of Encode.
func DecodeRotateReply(b []byte) (RotateReply, error) {
	d := codec.Decoder{B: b}
	m := RotateReply{
		Done: d.Bool(), Refused: d.Bool(), Step: int(d.Uint()), Steps: int(d.Uint()), Doing: d.String(), Begun: d.Uint(),
	}
	for range d.Count() {
		m.Waiting = append(m.Waiting, d.String())
	}
	return m, d.End()
}

// Rotate has the cluster take the next step of a replacement.
func (c *Client) Rotate(ctx context.Context, q RotateRequest) (RotateReply, error) {
	reply, err := c.call(ctx, CallRotate, q.Encode())
	if err != nil {
		return RotateReply{}, err
	}
	return DecodeRotateReply(reply)
}
