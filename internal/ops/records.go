package ops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"strings"
	"syscall"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// These limit one reply about records. The caller asks again for the rest.
const (
	remotePage = 1 << 20 // bytes of keys
	remoteLoad = 4 << 20 // bytes of values, after which no other value is added
)

// serveRecordList lists keys. It also answers without a leader, and says so, because an operator
// may then want to save what the node has.
func (o *Operator) serveRecordList(ctx context.Context, _ string, body []byte) ([]byte, error) {
	q, err := remote.DecodeListRequest(body)
	if err != nil {
		return nil, codec.ErrMalformed
	}
	var reply remote.ListReply
	if q.After == "" {
		reply.Current = o.cfg.Replica.CaughtUp(ctx, 1)
	}
	keys, err := o.cfg.Up.Records.List(ctx, q.Dir, true)
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

// serveRecordLoad returns the values of keys.
func (o *Operator) serveRecordLoad(ctx context.Context, _ string, body []byte) ([]byte, error) {
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
		value, found, err := o.recordValue(ctx, key)
		if err != nil {
			return nil, err
		}
		reply.Values = append(reply.Values, remote.Value{Found: found, Bytes: value})
		size += len(value)
	}
	return reply.Encode(), nil
}

// recordValue returns the value of key. It reports false if there is none.
func (o *Operator) recordValue(ctx context.Context, key string) ([]byte, bool, error) {
	value, err := o.cfg.Up.Records.Load(ctx, key)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EISDIR) {
		return nil, false, nil
	}
	return value, err == nil, err
}

// serveRecordPut compares records with what is stored, and then stores them in one write. Another
// program may write in between: the answer to a request to keep records is true for the moment of
// the comparison.
func (o *Operator) serveRecordPut(ctx context.Context, _ string, body []byte) ([]byte, error) {
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
	if !o.cfg.Replica.CaughtUp(ctx, 4) {
		return nil, o.cfg.Life.Explain(errs.ErrNoLeader)
	}
	reply, err := o.compare(ctx, records)
	if err != nil {
		return nil, err
	}
	if reply.Outcome == remote.Same || q.Mode == remote.Check || q.Mode == remote.Keep && reply.Outcome == remote.Differs {
		return reply.Encode(), nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 4*o.cfg.Replica.AttemptTimeout(), errs.ErrNoLeader)
	defer cancel()
	err = o.cfg.Up.StoreAll(ctx, records)
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

// compare says what a write of the records would change: Stored, Same or Differs.
func (o *Operator) compare(ctx context.Context, records []state.Record) (remote.PutReply, error) {
	same := 0
	var differ []string
	for _, r := range records {
		value, found, err := o.recordValue(ctx, r.Key)
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

// refusedBecause reports whether a write failed because of its records, and the reason.
func refusedBecause(err error) (string, bool) {
	switch {
	case errors.Is(err, syscall.EISDIR):
		return "there are keys below it", true
	case errors.Is(err, syscall.ENOTDIR):
		return "a key above it has a value", true
	case errors.Is(err, errs.ErrTooLarge), errors.Is(err, fs.ErrInvalid):
		if e := (*fs.PathError)(nil); errors.As(err, &e) {
			err = e.Err
		}
		return strings.ReplaceAll(strings.TrimPrefix(err.Error(), "flotilla: "), "\n", "; "), true
	}
	return "", false
}
