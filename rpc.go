package flotilla

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// Calls between nodes. Their paths carry the version.
const (
	callHello   = "/1/hello"   // who is there
	callPromise = "/1/promise" // will you form a cluster with us
	callVoid    = "/1/void"    // will you take no part in a proposed cluster, whose proposer does not come back
	callProcess = "/1/process" // which process of your node are you
	callJoin    = "/1/join"    // let me in; for the leader
	callLeave   = "/1/leave"   // let me go; for the leader
	callOpen    = "/1/open"    // open a session for this process; for the leader
	callEnd     = "/1/end"     // end my session; for the leader
	callApply   = "/1/apply"   // commands; for the leader
	callConfirm = "/1/confirm" // which index is current; for the leader
	callTerm    = "/1/term"    // your raft term
	callLapsed  = "/1/lapsed"  // has this session's lease lapsed for you
	callWill    = "/1/will"    // the process of this session is dead; for the leader
)

// bytesCall makes a handler of a function on bytes.
func bytesCall(f func(ctx context.Context, peer string, body []byte) ([]byte, error)) http.HandlerFunc {
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

// jsonCall makes a handler of a function on a value.
func jsonCall[In, Out any](f func(ctx context.Context, peer string, in In) (Out, error)) http.HandlerFunc {
	return bytesCall(func(ctx context.Context, peer string, body []byte) ([]byte, error) {
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
	case errors.Is(err, errNotLeader), errors.Is(err, ErrNoLeader):
		return http.StatusMisdirectedRequest
	case errors.Is(err, codec.ErrMalformed):
		return http.StatusBadRequest
	case errors.As(err, new(*supersededError)):
		return http.StatusConflict
	}
	return http.StatusServiceUnavailable
}

// call asks a node a question in JSON.
func call[Out any](ctx context.Context, port *wire.Port, id, path string, in any) (Out, error) {
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

// isCallError reports whether a peer answered, and answered no.
func isCallError(err error) bool {
	var e *wire.CallError
	return errors.As(err, &e)
}
