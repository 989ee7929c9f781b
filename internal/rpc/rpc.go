package rpc

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// The paths of the calls. Each begins with the version of its message.
const (
	Hello       = "/1/hello"        // says who the caller is, and asks who is there
	Promise     = "/1/promise"      // asks for a promise to form a cluster with the caller
	Void        = "/1/void"         // asks a node to take no part in a cluster whose proposer is gone
	Stale       = "/1/stale"        // asks whether a directory is of no use any more
	Process     = "/1/process"      // asks which process of its node this is
	Join        = "/1/join"         // asks the leader to let the caller in
	Leave       = "/1/leave"        // asks the leader to remove the caller
	OpenSession = "/1/open"         // asks the leader for a session of the caller's process
	EndSession  = "/1/end"          // asks the leader to end the caller's session
	Apply       = "/1/apply"        // gives the leader commands
	Confirm     = "/1/confirm"      // asks the leader which index is current
	Term        = "/1/term"         // asks for the node's raft term
	Expired     = "/1/expired"      // asks whether the node's grant to a session has expired
	Turn        = "/1/turn"         // asks the leader for a turn at changing an entry
	Limit       = "/1/limit"        // tells the leader what the caller has allowed of rate limits
	DeathNotice = "/1/death-notice" // tells the leader that the process of a session is dead
)

// Message is the body of a call or of its answer.
type Message interface {
	Encode() []byte
}

// Empty is a body that says nothing: the call itself is the question, or the answer is yes.
type Empty struct{}

// Encode returns nothing.
func (Empty) Encode() []byte { return nil }

// DecodeEmpty is the inverse of Encode. It accepts any body, so that an answer may say more later.
func DecodeEmpty([]byte) (Empty, error) { return Empty{}, nil }

// Bytes makes a handler of a function on bytes. The peer is the node ID that the caller has proved.
func Bytes(f func(ctx context.Context, peer string, body []byte) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := bodyOf(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		reply, err := f(r.Context(), wire.Peer(r.Context()), body)
		if err != nil {
			http.Error(w, err.Error(), statusOf(err))
			return
		}
		w.Write(reply)
	}
}

// bodyOf reads the body of a call, which package wire limits.
func bodyOf(r *http.Request) ([]byte, error) {
	if r.ContentLength < 0 {
		return io.ReadAll(r.Body)
	}
	body := make([]byte, r.ContentLength)
	_, err := io.ReadFull(r.Body, body)
	return body, err
}

// Serve makes a handler of a function on messages. A body that decode refuses is answered with its
// error.
func Serve[In any, Out Message](
	decode func([]byte) (In, error), f func(ctx context.Context, peer string, in In) (Out, error),
) http.HandlerFunc {
	return Bytes(func(ctx context.Context, peer string, body []byte) ([]byte, error) {
		in, err := decode(body)
		if err != nil {
			return nil, err
		}
		out, err := f(ctx, peer, in)
		if err != nil {
			return nil, err
		}
		return out.Encode(), nil
	})
}

// statusOf returns the HTTP status that tells a caller what kind of error it is.
func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrNotLeader), errors.Is(err, errs.ErrNoLeader):
		return http.StatusMisdirectedRequest
	case errors.Is(err, codec.ErrMalformed):
		return http.StatusBadRequest
	case errors.As(err, new(*SupersededError)):
		return http.StatusConflict
	}
	return http.StatusServiceUnavailable
}

// Call sends a message to a node and decodes the answer. The error is a *wire.RPCError if the node
// answered with an error.
func Call[Out any](
	ctx context.Context, port *wire.Port, id, path string, in Message, decode func([]byte) (Out, error),
) (Out, error) {
	reply, err := port.Call(ctx, id, path, in.Encode())
	if err != nil {
		var none Out
		return none, err
	}
	return decode(reply)
}

// CallAddr is Call for an address at which any node may answer. It also returns the ID of that
// node, if one has answered.
func CallAddr[Out any](
	ctx context.Context, port *wire.Port, addr, path string, in Message, decode func([]byte) (Out, error),
) (id string, out Out, err error) {
	id, reply, err := port.CallAddr(ctx, addr, path, in.Encode())
	if err != nil {
		return id, out, err
	}
	out, err = decode(reply)
	return id, out, err
}

// IsRefused reports whether a peer answered, and answered no.
func IsRefused(err error) bool {
	var e *wire.RPCError
	return errors.As(err, &e)
}

// IsSuperseded reports whether a peer answered with a [SupersededError].
func IsSuperseded(err error) bool {
	var e *wire.RPCError
	return errors.As(err, &e) && e.Status == http.StatusConflict
}

// ErrNotLeader is the answer of a node that was asked for what only the leader can do.
var ErrNotLeader = errors.New("this node does not lead")

// SupersededError is the answer to a process that cannot go on as its node. It learns the reason
// from the answer to its next greeting.
type SupersededError struct {
	Why string // for people
}

// Error returns the reason.
func (e *SupersededError) Error() string { return e.Why }
