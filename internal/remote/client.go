package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// callTimeout bounds one RPC to one node. The node itself waits at most 30 s for a leader.
const callTimeout = 45 * time.Second

// Config describes a Client.
type Config struct {
	// Secrets are secrets of the cluster. One that its nodes have is enough.
	Secrets []seal.Secret

	// Peers returns addresses of nodes, host:port. One node that answers is enough.
	Peers func(ctx context.Context) ([]string, error)

	// Dial connects to a node. Nil: a net.Dialer does.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client asks a cluster. Its methods are safe for concurrent use. They try the nodes in turn,
// beginning with the one that answered last. If none answers, the error is an *UnreachableError.
type Client struct {
	port *wire.Port
	find func(ctx context.Context) ([]string, error)

	mu    sync.Mutex
	addrs []string // in the order in which they are tried; empty: not found yet
}

// Open returns a Client. It connects to no node yet. The error says what is wrong with cfg.
func Open(cfg Config) (*Client, error) {
	port, err := wire.OpenClient(wire.Config{Secrets: cfg.Secrets, Dial: cfg.Dial})
	if err != nil {
		return nil, err
	}
	return &Client{port: port, find: cfg.Peers}, nil
}

// Close ends the Client's connections.
func (c *Client) Close() error { return c.port.Close() }

// call asks one node after another until one answers. If none does, the error is an
// *UnreachableError.
func (c *Client) call(ctx context.Context, path string, body []byte) (reply []byte, err error) {
	err = c.each(ctx, func(addr string) (err error) {
		_, reply, err = c.callAddr(ctx, addr, path, body)
		return err
	})
	return reply, err
}

// each calls ask with the address of one node after another until it returns nil or a finalError.
func (c *Client) each(ctx context.Context, ask func(addr string) error) error {
	addrs, err := c.addresses(ctx)
	if err != nil {
		return err
	}
	failed := new(UnreachableError)
	for _, addr := range addrs {
		err := ask(addr)
		if err == nil {
			c.prefer(addr)
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if final := (*finalError)(nil); errors.As(err, &final) {
			return final.err
		}
		if e := (*wire.RPCError)(nil); errors.As(err, &e) && e.Status == http.StatusBadRequest {
			return fmt.Errorf("the node at %s did not understand the question (%w); "+
				"it runs another version of flotilla: upgrade the older of the two", addr, err)
		}
		failed.Faults = append(failed.Faults, Fault{addr, err})
	}
	return failed
}

// finalError is the error of a request that no other node can be asked to carry out.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }

// callAddr asks the node at an address, and returns its ID too.
func (c *Client) callAddr(ctx context.Context, addr, path string, body []byte) (id string, reply []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.port.CallAddr(ctx, addr, path, body)
}

// addresses returns the addresses to ask, in order.
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

// prefer makes addr the first one to try from now on.
func (c *Client) prefer(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.addrs, addr); i > 0 {
		c.addrs = slices.Insert(slices.Delete(c.addrs, i, i+1), 0, addr)
	}
}

// forget takes addr from the addresses to ask, unless it is the only one.
func (c *Client) forget(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.addrs, addr); i >= 0 && len(c.addrs) > 1 {
		c.addrs = slices.Delete(c.addrs, i, i+1)
	}
}
