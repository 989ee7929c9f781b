package ops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"sort"
	"strings"
	"syscall"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/rpc"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// What one reply about records carries; a caller asks again for the rest.
const (
	remotePage = 1 << 20 // bytes of keys
	remoteLoad = 4 << 20 // bytes of values, beyond which no other one is added
)

// HandleRecords serves the calls of operators' programs, which are no members. They have proved that they know the secret, and
// whoever knows it is trusted.
func (n *Operator) HandleRecords(mux *http.ServeMux) {
	mux.HandleFunc("POST "+remote.CallList, rpc.Bytes(n.serveRecordList))
	mux.HandleFunc("POST "+remote.CallLoad, rpc.Bytes(n.serveRecordLoad))
	mux.HandleFunc("POST "+remote.CallPut, rpc.Bytes(n.serveRecordPut))
}

// serveRecordList answers without a leader too, and says so: what a node has is worth saving then.
func (n *Operator) serveRecordList(ctx context.Context, _ string, body []byte) ([]byte, error) {
	q, err := remote.DecodeListRequest(body)
	if err != nil {
		return nil, codec.ErrMalformed
	}
	var reply remote.ListReply
	if q.After == "" {
		reply.Current = n.Replica.CaughtUp(ctx, 1)
	}
	keys, err := n.Up.Records.List(ctx, q.Dir, true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	from, size := sort.Search(len(keys), func(i int) bool {
		return q.After == "" || bytes.Compare(keyspace.Tree(keys[i]), keyspace.Tree(q.After)) > 0
	}), 0
	for i := from; i < len(keys); i++ {
		if i+1 < len(keys) && strings.HasPrefix(keys[i+1], keys[i]+"/") {
			continue // a directory, which is listed right before the first key in it
		}
		if size += len(keys[i]); size > remotePage && len(reply.Keys) > 0 {
			reply.More = true
			break
		}
		reply.Keys = append(reply.Keys, keys[i])
	}
	return reply.Encode(), nil
}

func (n *Operator) serveRecordLoad(ctx context.Context, _ string, body []byte) ([]byte, error) {
	q, err := remote.DecodeLoadRequest(body)
	if err != nil {
		return nil, codec.ErrMalformed
	}
	var reply remote.LoadReply
	size := 0
	for _, key := range q.Keys {
		if size > remoteLoad {
			break
		}
		value, found, err := n.recordValue(ctx, key)
		if err != nil {
			return nil, err
		}
		reply.Values = append(reply.Values, remote.Value{Found: found, Bytes: value})
		size += len(value)
	}
	return reply.Encode(), nil
}

// recordValue returns the value at key, if there is one.
func (n *Operator) recordValue(ctx context.Context, key string) ([]byte, bool, error) {
	value, err := n.Up.Records.Load(ctx, key)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EISDIR) {
		return nil, false, nil
	}
	return value, err == nil, err
}

// serveRecordPut stores records in one write, after it has looked what is there. Somebody else may write between the two; an operator
// who asks for records to be kept is answered for the moment of the question.
func (n *Operator) serveRecordPut(ctx context.Context, _ string, body []byte) ([]byte, error) {
	q, err := remote.DecodePutRequest(body)
	if err != nil || len(q.Records) == 0 {
		return nil, codec.ErrMalformed
	}
	var records []state.Record
	for _, r := range q.Records {
		if clean, err := keyspace.Clean(r.Key); err != nil || clean != r.Key || clean == "" {
			return remote.PutReply{Outcome: remote.Refused, Reason: "the key is not in its clean form, or has more than " + fmt.Sprint(keyspace.MaxName) + " bytes"}.Encode(), nil
		}
		if err := keyspace.Misplaced(r.Key); err != nil {
			return remote.PutReply{Outcome: remote.Refused, Reason: err.Error()}.Encode(), nil
		}
		if len(r.Value) > keyspace.MaxValue {
			return remote.PutReply{Outcome: remote.Refused, Reason: fmt.Sprintf("the value has %d bytes, the limit is %d", len(r.Value), keyspace.MaxValue)}.Encode(), nil
		}
		records = append(records, state.Record{Key: r.Key, Value: r.Value})
	}
	if !n.Replica.CaughtUp(ctx, 4) {
		return nil, n.Life.Explain(errs.NoLeader)
	}
	reply, err := n.compare(ctx, records)
	if err != nil {
		return nil, err
	}
	if reply.Outcome == remote.Same || q.Mode == remote.Check || q.Mode == remote.Keep && reply.Outcome == remote.Differs {
		return reply.Encode(), nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 4*n.Replica.AttemptTimeout(), errs.NoLeader)
	defer cancel()
	err = n.Up.StoreAll(ctx, records)
	if reason, refused := refusedBecause(err); refused {
		return remote.PutReply{Outcome: remote.Refused, Reason: reason}.Encode(), nil
	}
	if err != nil {
		return nil, err
	}
	if reply.Outcome == remote.Differs {
		return remote.PutReply{Outcome: remote.Replaced}.Encode(), nil
	}
	return remote.PutReply{Outcome: remote.Stored}.Encode(), nil
}

// compare says what storing records would change: Stored, Same or Differs.
func (n *Operator) compare(ctx context.Context, records []state.Record) (remote.PutReply, error) {
	same := 0
	var differ []string
	for _, r := range records {
		value, found, err := n.recordValue(ctx, r.Key)
		switch {
		case err != nil:
			return remote.PutReply{}, err
		case found && bytes.Equal(value, r.Value):
			same++
		case found:
			differ = append(differ, r.Key)
		}
	}
	switch {
	case len(differ) > 0:
		slices.Sort(differ)
		return remote.PutReply{Outcome: remote.Differs, Reason: "the cluster has another value of " + strings.Join(differ, ", ")}, nil
	case same == len(records):
		return remote.PutReply{Outcome: remote.Same}, nil
	}
	return remote.PutReply{Outcome: remote.Stored}, nil
}

// refusedBecause reports whether a write failed because of what was to be written, and in which words.
func refusedBecause(err error) (string, bool) {
	switch {
	case errors.Is(err, syscall.EISDIR):
		return "there are keys below it", true
	case errors.Is(err, syscall.ENOTDIR):
		return "a key above it has a value", true
	case errors.Is(err, errs.TooLarge), errors.Is(err, fs.ErrInvalid):
		if e := (*fs.PathError)(nil); errors.As(err, &e) {
			err = e.Err
		}
		return strings.ReplaceAll(strings.TrimPrefix(err.Error(), "flotilla: "), "\n", "; "), true
	}
	return "", false
}
