package replica

import (
	"encoding/binary"

	"github.com/flotilla-ha/flotilla/internal/codec"
)

// Proposal is a sealed command on its way to the leader. Session and Seq are those in the command,
// so that the leader knows which answer to wait for.
type Proposal struct {
	Session, Seq uint64 // the command's own
	Entry        []byte // the command as it will be in the log
}

// ApplyRequest is the body of rpc.Apply: commands for the leader to propose. The answer is empty;
// the commands' own answers arrive with the log.
type ApplyRequest struct {
	Proposals []Proposal // at least one, of the node that calls
}

// Encode returns the wire form of m.
func (m ApplyRequest) Encode() []byte {
	const head = 3 * binary.MaxVarintLen64
	var e codec.Encoder
	size := head
	for _, p := range m.Proposals {
		size += head + len(p.Entry)
	}
	e.Grow(size)
	e.Uint(uint64(len(m.Proposals)))
	for _, p := range m.Proposals {
		e.Uint(p.Session)
		e.Uint(p.Seq)
		e.Bytes(p.Entry)
	}
	return e.B
}

// DecodeApplyRequest reads the wire form of an ApplyRequest.
func DecodeApplyRequest(b []byte) (ApplyRequest, error) {
	d := codec.Decoder{B: b}
	var m ApplyRequest
	for range d.Count() {
		m.Proposals = append(m.Proposals, Proposal{Session: d.Uint(), Seq: d.Uint(), Entry: d.Bytes()})
	}
	if err := d.End(); err != nil || len(m.Proposals) == 0 {
		return ApplyRequest{}, codec.ErrMalformed
	}
	return m, nil
}

// ConfirmReply is the answer to rpc.Confirm, whose request is empty: the leader's confirmed index.
type ConfirmReply struct {
	Index uint64 // no acknowledged write is above it
	Last  uint64 // the newest entry of the leader's log
	Known bool   // whether Sum is known
	Sum   uint64 // the chained checksum of the log up to Index
}

// Encode returns the wire form of m.
func (m ConfirmReply) Encode() []byte {
	var e codec.Encoder
	e.Uint(m.Index)
	e.Uint(m.Last)
	e.Bool(m.Known)
	e.Uint(m.Sum)
	return e.B
}

// DecodeConfirmReply reads the wire form of a ConfirmReply.
func DecodeConfirmReply(b []byte) (ConfirmReply, error) {
	d := codec.Decoder{B: b}
	m := ConfirmReply{Index: d.Uint(), Last: d.Uint(), Known: d.Bool(), Sum: d.Uint()}
	if err := d.End(); err != nil {
		return ConfirmReply{}, err
	}
	return m, nil
}

// TermReply is the answer to rpc.Term, whose request is empty: the current term of the node's raft.
type TermReply struct {
	Term uint64 // of a raft that runs
}

// Encode returns the wire form of m.
func (m TermReply) Encode() []byte {
	var e codec.Encoder
	e.Uint(m.Term)
	return e.B
}

// DecodeTermReply reads the wire form of a TermReply.
func DecodeTermReply(b []byte) (TermReply, error) {
	d := codec.Decoder{B: b}
	m := TermReply{Term: d.Uint()}
	if err := d.End(); err != nil {
		return TermReply{}, err
	}
	return m, nil
}
