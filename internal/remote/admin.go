package remote

import (
	"context"

	"github.com/flotilla-ha/flotilla/internal/codec"
)

// The calls about the cluster itself. Any node takes them, and passes them on to whom they are for.
const (
	CallStatus   = "/1/status"           // StatusRequest, StatusReply
	CallRemove   = "/1/members/remove"   // RemoveRequest, Answer
	CallTransfer = "/1/members/transfer" // TransferRequest, Answer
	CallMove     = "/1/roles/move"       // MoveRequest, Answer
	CallDrain    = "/1/drain"            // DrainRequest, Answer
)

// StatusRequest asks what nodes know.
type StatusRequest struct {
	Node string // ID of the one; empty: all members
}

// StatusReply tells it.
type StatusReply struct {
	Nodes []NodeStatus // the one that was asked first
}

// NodeStatus is what one node has said of itself, or why it has not.
type NodeStatus struct {
	ID, Name, Addr string // as the cluster knows the node

	Status []byte // flotilla.Status in JSON; empty: the node has said nothing
	Why    string // why it has not, or what it is waiting for until it is ready; empty: all is well
}

// RemoveRequest asks to take a member out of the cluster for good.
type RemoveRequest struct {
	Node  string // its ID
	Force bool   // even if it is present
}

// TransferRequest asks to hand the leadership over.
type TransferRequest struct {
	From string // ID of the node that led when this was asked for: if another one leads by now, all is done, unless To says more
	To   string // ID of a voter; empty: any but From
}

// MoveRequest asks the holder of a role to hand it over.
type MoveRequest struct {
	Role  string // its name
	Fence uint64 // of the tenure that is to end: if that has ended already, all is done, unless To says more
	To    string // ID of the node that is to have it; empty: any other
}

// DrainRequest asks a node to take no new clients and no roles.
type DrainRequest struct {
	Node string // its ID
	Undo bool   // it may again
}

// Answer says what has become of a request. One that was refused was understood, and would be refused by any node.
type Answer struct {
	Refused bool   // nothing was done, or not all
	Text    string // what was done, or why not
}

// Status asks what nodes know: the one with the ID, or all members if it is empty.
func (c *Client) Status(ctx context.Context, node string) (StatusReply, error) {
	reply, err := c.call(ctx, CallStatus, StatusRequest{Node: node}.Encode())
	if err != nil {
		return StatusReply{}, err
	}
	return DecodeStatusReply(reply)
}

// Remove takes a member out of the cluster.
func (c *Client) Remove(ctx context.Context, q RemoveRequest) (Answer, error) {
	return c.ask(ctx, CallRemove, q.Encode())
}

// Transfer hands the leadership over.
func (c *Client) Transfer(ctx context.Context, q TransferRequest) (Answer, error) {
	return c.ask(ctx, CallTransfer, q.Encode())
}

// Move has a role handed over.
func (c *Client) Move(ctx context.Context, q MoveRequest) (Answer, error) {
	return c.ask(ctx, CallMove, q.Encode())
}

// Drain drains a node, or undoes that.
func (c *Client) Drain(ctx context.Context, q DrainRequest) (Answer, error) {
	return c.ask(ctx, CallDrain, q.Encode())
}

func (c *Client) ask(ctx context.Context, path string, body []byte) (Answer, error) {
	reply, err := c.call(ctx, path, body)
	if err != nil {
		return Answer{}, err
	}
	return DecodeAnswer(reply)
}

// Encode returns the message's bytes.
func (m StatusRequest) Encode() []byte {
	var e codec.Encoder
	e.String(m.Node)
	return e.B
}

// DecodeStatusRequest is the inverse of Encode.
func DecodeStatusRequest(b []byte) (StatusRequest, error) {
	d := codec.Decoder{B: b}
	m := StatusRequest{Node: d.String()}
	return m, d.End()
}

// Encode returns the message's bytes.
func (m StatusReply) Encode() []byte {
	var e codec.Encoder
	e.Uint(uint64(len(m.Nodes)))
	for _, n := range m.Nodes {
		e.String(n.ID)
		e.String(n.Name)
		e.String(n.Addr)
		e.Bytes(n.Status)
		e.String(n.Why)
	}
	return e.B
}

// DecodeStatusReply is the inverse of Encode. Each Status is a part of b, not a copy.
func DecodeStatusReply(b []byte) (StatusReply, error) {
	d := codec.Decoder{B: b}
	var m StatusReply
	for range d.Count() {
		m.Nodes = append(m.Nodes, NodeStatus{ID: d.String(), Name: d.String(), Addr: d.String(), Status: d.Bytes(), Why: d.String()})
	}
	return m, d.End()
}

// Encode returns the message's bytes.
func (m RemoveRequest) Encode() []byte {
	var e codec.Encoder
	e.String(m.Node)
	e.Bool(m.Force)
	return e.B
}

// DecodeRemoveRequest is the inverse of Encode.
func DecodeRemoveRequest(b []byte) (RemoveRequest, error) {
	d := codec.Decoder{B: b}
	m := RemoveRequest{Node: d.String(), Force: d.Bool()}
	return m, d.End()
}

// Encode returns the message's bytes.
func (m TransferRequest) Encode() []byte {
	var e codec.Encoder
	e.String(m.From)
	e.String(m.To)
	return e.B
}

// DecodeTransferRequest is the inverse of Encode.
func DecodeTransferRequest(b []byte) (TransferRequest, error) {
	d := codec.Decoder{B: b}
	m := TransferRequest{From: d.String(), To: d.String()}
	return m, d.End()
}

// Encode returns the message's bytes.
func (m MoveRequest) Encode() []byte {
	var e codec.Encoder
	e.String(m.Role)
	e.Uint(m.Fence)
	e.String(m.To)
	return e.B
}

// DecodeMoveRequest is the inverse of Encode.
func DecodeMoveRequest(b []byte) (MoveRequest, error) {
	d := codec.Decoder{B: b}
	m := MoveRequest{Role: d.String(), Fence: d.Uint(), To: d.String()}
	return m, d.End()
}

// Encode returns the message's bytes.
func (m DrainRequest) Encode() []byte {
	var e codec.Encoder
	e.String(m.Node)
	e.Bool(m.Undo)
	return e.B
}

// DecodeDrainRequest is the inverse of Encode.
func DecodeDrainRequest(b []byte) (DrainRequest, error) {
	d := codec.Decoder{B: b}
	m := DrainRequest{Node: d.String(), Undo: d.Bool()}
	return m, d.End()
}

// Encode returns the message's bytes.
func (m Answer) Encode() []byte {
	var e codec.Encoder
	e.Bool(m.Refused)
	e.String(m.Text)
	return e.B
}

// DecodeAnswer is the inverse of Encode.
func DecodeAnswer(b []byte) (Answer, error) {
	d := codec.Decoder{B: b}
	m := Answer{Refused: d.Bool(), Text: d.String()}
	return m, d.End()
}
