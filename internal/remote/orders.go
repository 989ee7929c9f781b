package remote

import "github.com/flotilla-ha/flotilla/internal/codec"

// These are the paths of the RPCs about the cluster itself. Any node takes them, and passes them on
// to the node that can answer.
const (
	// CallStatus takes a StatusRequest. Its reply is a StatusReply.
	CallStatus = "/1/status"

	// CallRemove takes a RemoveRequest. Its reply is an Answer.
	CallRemove = "/1/members/remove"

	// CallVote takes a VoteRequest. Its reply is an Answer.
	CallVote = "/1/members/vote"

	// CallTransfer takes a TransferRequest. Its reply is an Answer.
	CallTransfer = "/1/members/transfer"

	// CallMove takes a MoveRequest. Its reply is an Answer.
	CallMove = "/1/roles/move"

	// CallDrain takes a DrainRequest. Its reply is an Answer.
	CallDrain = "/1/drain"
)

// StatusRequest asks what nodes know of the cluster.
type StatusRequest struct {
	// Node is the ID of one node. Empty: all members are asked.
	Node string
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

// StatusReply answers a StatusRequest.
type StatusReply struct {
	// Nodes has one element for each node that was asked. The node that answers comes first.
	Nodes []NodeStatus
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
		m.Nodes = append(
			m.Nodes,
			NodeStatus{ID: d.String(), Name: d.String(), Addr: d.String(), Status: d.Bytes(), Why: d.String()},
		)
	}
	return m, d.End()
}

// NodeStatus is what one node says of itself, or why it does not.
type NodeStatus struct {
	// ID, Name and Addr are those under which the cluster knows the node.
	ID, Name, Addr string

	// Status is a status.Status in JSON. Empty: the node did not answer.
	Status []byte

	// Why is why the node did not answer, or what it waits for until it is ready. Empty: all is well.
	Why string
}

// RemoveRequest asks to take a member out of the cluster for good.
type RemoveRequest struct {
	// Node is the member's ID.
	Node string

	// Force removes the member even if it is present.
	Force bool
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

// VoteRequest asks that a member may vote, or that it does not.
type VoteRequest struct {
	// Node is the member's ID.
	Node string

	// Demote says that it is not to vote.
	Demote bool

	// Few accepts that fewer than three voters are left.
	Few bool
}

// Encode returns the message's bytes.
func (m VoteRequest) Encode() []byte {
	var e codec.Encoder
	e.String(m.Node)
	e.Bool(m.Demote)
	e.Bool(m.Few)
	return e.B
}

// DecodeVoteRequest is the inverse of Encode.
func DecodeVoteRequest(b []byte) (VoteRequest, error) {
	d := codec.Decoder{B: b}
	m := VoteRequest{Node: d.String(), Demote: d.Bool(), Few: d.Bool()}
	return m, d.End()
}

// TransferRequest asks to hand over the leadership.
type TransferRequest struct {
	// From is the ID of the node that led when this was asked for. If another node leads by now,
	// nothing is left to do, unless To names a third one.
	From string

	// To is the ID of a voter. Empty: any voter but From.
	To string
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

// MoveRequest asks the holder of a role to hand the role over.
type MoveRequest struct {
	// Role is the role's name.
	Role string

	// Fence is that of the tenure that is to end. If it has ended already, nothing is left to do,
	// unless To names another node than the present holder.
	Fence uint64

	// To is the ID of the node that is to have the role. Empty: any other node.
	To string
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

// DrainRequest asks a node to take no new clients and no roles.
type DrainRequest struct {
	// Node is the node's ID.
	Node string

	// Undo ends the drain: the node takes clients and roles again.
	Undo bool
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

// Answer says what was done about a request. A refused request was understood, and any node would
// refuse it.
type Answer struct {
	// Refused says that the request was not carried out, or not completely.
	Refused bool

	// Text is what was done, or why it was not.
	Text string
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
