package remote

import (
	"context"
	"fmt"
	"iter"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

const loadKeys = 256 // keys in one request

// List returns all keys below dir in the storage's order. Directories are not among them. current
// says whether the node that answered had everything written before the call. Without a leader no
// node knows that. List may see a write during the call or not.
func (c *Client) List(ctx context.Context, dir string) (keys []string, current bool, err error) {
	after := ""
	for {
		body, err := c.call(ctx, CallList, ListRequest{Dir: dir, After: after}.Encode())
		if err != nil {
			return nil, false, err
		}
		reply, err := DecodeListReply(body)
		if err != nil {
			return nil, false, err
		}
		if after == "" {
			current = reply.Current
		}
		keys = append(keys, reply.Keys...)
		if !reply.More {
			return keys, current, nil
		}
		if len(reply.Keys) == 0 || keys[len(keys)-1] == after {
			return nil, false, codec.ErrMalformed // the list would never end
		}
		after = keys[len(keys)-1]
	}
}

// Load yields the records of those keys that have a value, in the order of the keys. It ends after
// the first error.
func (c *Client) Load(ctx context.Context, keys []string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for len(keys) > 0 {
			asked := keys[:min(len(keys), loadKeys)]
			body, err := c.call(ctx, CallLoad, LoadRequest{Keys: asked}.Encode())
			var reply LoadReply
			if err == nil {
				reply, err = DecodeLoadReply(body)
			}
			if err == nil && (len(reply.Values) == 0 || len(reply.Values) > len(asked)) {
				err = codec.ErrMalformed
			}
			if err != nil {
				yield(Record{}, err)
				return
			}
			for i, v := range reply.Values {
				if v.Found && !yield(Record{asked[i], v.Bytes}, nil) {
					return
				}
			}
			keys = keys[len(reply.Values):]
		}
	}
}

// Put stores records together: all of them or none. If they are too large for one write, the reply
// is Refused.
func (c *Client) Put(ctx context.Context, mode Mode, records []Record) (PutReply, error) {
	body := PutRequest{Mode: mode, Records: records}.Encode()
	if len(body) > wire.MaxRequest {
		return PutReply{
			Outcome: Refused,
			Reason:  fmt.Sprintf("together they have %d bytes, one write has at most %d", len(body), wire.MaxRequest),
		}, nil
	}
	reply, err := c.call(ctx, CallPut, body)
	if err != nil {
		return PutReply{}, err
	}
	return DecodePutReply(reply)
}
