package remote

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

const (
	callTimeout = 45 * time.Second // of one call to one node, which itself waits at most 30 s for a leader
	loadKeys    = 256              // asked for in one call
)

// Config describes a Client.
type Config struct {
	// Secrets are those of the cluster; any one that its nodes have will do.
	Secrets []seal.Secret

	// Peers finds addresses, host:port, of nodes. One node that answers is enough.
	Peers func(ctx context.Context) ([]string, error)

	// Dial replaces the network. Nil: a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client asks a cluster. Its methods may be called from several goroutines at once. They try the nodes in turn, beginning with
// the one that answered last; all that they ask for may be asked for again.
type Client struct {
	port *wire.Port
	find func(ctx context.Context) ([]string, error)

	mu    sync.Mutex
	addrs []string // in the order in which they are tried; empty: not found yet
}

// Open makes a Client. It asks nobody yet.
func Open(cfg Config) (*Client, error) {
	port, err := wire.OpenClient(wire.Config{Secrets: cfg.Secrets, Dial: cfg.Dial})
	if err != nil {
		return nil, err
	}
	return &Client{port: port, find: cfg.Peers}, nil
}

// Close ends the Client's connections.
func (c *Client) Close() error { return c.port.Close() }

// List returns all keys below dir, without the directories, in the storage's order, and whether the node that answered was current:
// without a leader it cannot know. What is written meanwhile may be there or not.
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
			return nil, false, codec.ErrMalformed // it would never end
		}
		after = keys[len(keys)-1]
	}
}

// Load gives the records of those of the keys that have a value, in their order. It ends with the first error.
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

// Put stores records together.
func (c *Client) Put(ctx context.Context, mode Mode, records []Record) (PutReply, error) {
	body := PutRequest{Mode: mode, Records: records}.Encode()
	if len(body) > wire.MaxRequest {
		return PutReply{Outcome: Refused, Reason: fmt.Sprintf("together they have %d bytes, one write has at most %d", len(body), wire.MaxRequest)}, nil
	}
	reply, err := c.call(ctx, CallPut, body)
	if err != nil {
		return PutReply{}, err
	}
	return DecodePutReply(reply)
}

// call asks one node after the other until one answers. An *UnreachableError says why none did.
func (c *Client) call(ctx context.Context, path string, body []byte) ([]byte, error) {
	addrs, err := c.addresses(ctx)
	if err != nil {
		return nil, err
	}
	failed := new(UnreachableError)
	for _, addr := range addrs {
		reply, err := c.callAddr(ctx, addr, path, body)
		if err == nil {
			c.prefer(addr)
			return reply, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if e := (*wire.CallError)(nil); errors.As(err, &e) && e.Status == http.StatusBadRequest {
			return nil, fmt.Errorf("the node at %s did not understand the question (%w); it runs another version of flotilla: upgrade the older of the two", addr, err)
		}
		failed.Faults = append(failed.Faults, Fault{addr, err})
	}
	return nil, failed
}

func (c *Client) callAddr(ctx context.Context, addr, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, reply, err := c.port.CallAddr(ctx, addr, path, body)
	return reply, err
}

// addresses returns where to ask, in order.
func (c *Client) addresses(ctx context.Context) ([]string, error) {
	c.mu.Lock()
	addrs := slices.Clone(c.addrs)
	c.mu.Unlock()
	if len(addrs) > 0 {
		return addrs, nil
	}
	found, err := c.find(ctx)
	if err != nil {
		return nil, &UnreachableError{Err: fmt.Errorf("finding the nodes: %w", err)}
	}
	for _, a := range found {
		if !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 {
		return nil, &UnreachableError{Err: errors.New("finding the nodes: no address was found")}
	}
	c.mu.Lock()
	c.addrs = slices.Clone(addrs)
	c.mu.Unlock()
	return addrs, nil
}

// prefer has addr tried first from now on.
func (c *Client) prefer(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.addrs, addr); i > 0 {
		c.addrs = slices.Insert(slices.Delete(c.addrs, i, i+1), 0, addr)
	}
}
