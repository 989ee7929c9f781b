package remote

import (
	"context"
	"errors"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// CallRotate takes a RotateRequest. Its reply is a RotateReply.
const CallRotate = "/1/rotate"

// CallEvict takes an EvictRequest. Its reply is an EvictReply.
const CallEvict = "/1/evict"

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
	encodeKeyIDs(&e, m.Have)
	e.Uint(m.Begun)
	return e.B
}

// DecodeRotateRequest is the inverse of Encode.
func DecodeRotateRequest(b []byte) (RotateRequest, error) {
	d := codec.Decoder{B: b}
	m := RotateRequest{What: d.String(), Have: decodeKeyIDs(&d), Begun: d.Uint()}
	return m, d.End()
}

func encodeKeyIDs(e *codec.Encoder, ids []seal.KeyID) {
	e.Uint(uint64(len(ids)))
	for _, id := range ids {
		e.Bytes(id[:])
	}
}

func decodeKeyIDs(d *codec.Decoder) (ids []seal.KeyID) {
	for range d.Count() {
		var id seal.KeyID
		b := d.Bytes()
		d.Bad = d.Bad || len(b) != len(id)
		copy(id[:], b)
		ids = append(ids, id)
	}
	return ids
}

// EvictRequest asks for the next step to evict a node.
type EvictRequest struct {
	// Node is the node's ID, its name, or the beginning of its ID.
	Node string

	// Have are the IDs of the secrets that the operator has.
	Have []seal.KeyID
}

// Encode returns the message's bytes.
func (m EvictRequest) Encode() []byte {
	var e codec.Encoder
	e.String(m.Node)
	encodeKeyIDs(&e, m.Have)
	return e.B
}

// DecodeEvictRequest is the inverse of Encode.
func DecodeEvictRequest(b []byte) (EvictRequest, error) {
	d := codec.Decoder{B: b}
	m := EvictRequest{Node: d.String(), Have: decodeKeyIDs(&d)}
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

// EvictReply says how far an eviction is. The caller asks again until it is done or refused.
type EvictReply struct {
	RotateReply

	// Notes has one line for each thing that a person must know or do.
	Notes []string
}

// Encode returns the message's bytes.
func (m EvictReply) Encode() []byte {
	var e codec.Encoder
	e.Bytes(m.RotateReply.Encode())
	e.Uint(uint64(len(m.Notes)))
	for _, n := range m.Notes {
		e.String(n)
	}
	return e.B
}

// DecodeEvictReply is the inverse of Encode.
func DecodeEvictReply(b []byte) (m EvictReply, err error) {
	d := codec.Decoder{B: b}
	if m.RotateReply, err = DecodeRotateReply(d.Bytes()); err != nil {
		return EvictReply{}, err
	}
	for range d.Count() {
		m.Notes = append(m.Notes, d.String())
	}
	return m, d.End()
}

// errEvicted says that the node that is evicted has answered.
var errEvicted = errors.New("that is the node to be evicted, which is not asked")

// Evict has the cluster take the next step to evict a node. An answer of the node with the ID
// evictee does not count. As long as that node can prove itself, it can answer under another ID:
// so ask again with the new secret alone.
func (c *Client) Evict(ctx context.Context, q EvictRequest, evictee string) (out EvictReply, err error) {
	err = c.each(ctx, func(addr string) error {
		from, reply, err := c.callAddr(ctx, addr, CallEvict, q.Encode())
		if err != nil {
			return err
		}
		if from == evictee {
			c.forget(addr) // it may keep the next question waiting
			return errEvicted
		}
		out, err = DecodeEvictReply(reply)
		return err
	})
	return out, err
}
