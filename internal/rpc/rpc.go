package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// Calls between nodes. Their paths carry the version.
const (
	Hello       = "/1/hello"   // who is there
	Promise     = "/1/promise" // will you form a cluster with us
	Void        = "/1/void"    // will you take no part in a proposed cluster, whose proposer does not come back
	Process     = "/1/process" // which process of your node are you
	Join        = "/1/join"    // let me in; for the leader
	Leave       = "/1/leave"   // let me go; for the leader
	OpenSession = "/1/open"    // open a session for this process; for the leader
	EndSession  = "/1/end"     // end my session; for the leader
	Apply       = "/1/apply"   // commands; for the leader
	Confirm     = "/1/confirm" // which index is current; for the leader
	Term        = "/1/term"    // your raft term
	Expired     = "/1/lapsed"  // has this session's lease lapsed for you
	DeathNotice = "/1/will"    // the process of this session is dead; for the leader
)

// Bytes makes a handler of a function on bytes.
func Bytes(f func(ctx context.Context, peer string, body []byte) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
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

// JSON makes a handler of a function on a value.
func JSON[In, Out any](f func(ctx context.Context, peer string, in In) (Out, error)) http.HandlerFunc {
	return Bytes(func(ctx context.Context, peer string, body []byte) ([]byte, error) {
		var in In
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, codec.ErrMalformed
		}
		out, err := f(ctx, peer, in)
		if err != nil {
			return nil, err
		}
		return json.Marshal(out)
	})
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrNotLeader), errors.Is(err, errs.NoLeader):
		return http.StatusMisdirectedRequest
	case errors.Is(err, codec.ErrMalformed):
		return http.StatusBadRequest
	case errors.As(err, new(*SupersededError)):
		return http.StatusConflict
	}
	return http.StatusServiceUnavailable
}

// Call asks a node a question in JSON.
func Call[Out any](ctx context.Context, port *wire.Port, id, path string, in any) (Out, error) {
	var out Out
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	reply, err := port.Call(ctx, id, path, body)
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal(reply, &out)
}

// IsRefused reports whether a peer answered, and answered no.
func IsRefused(err error) bool {
	var e *wire.CallError
	return errors.As(err, &e)
}

var ErrNotLeader = errors.New("this node does not lead")

// SupersededError is the answer to a process that is to learn, by a greeting, why it cannot go on.
type SupersededError struct{ Why string }

func (e *SupersededError) Error() string { return e.Why }
