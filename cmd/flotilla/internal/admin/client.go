package admin

import (
	"context"
	"errors"
	"fmt"

	"github.com/flotilla-ha/flotilla/cmd/flotilla/internal/cli"
	"github.com/flotilla-ha/flotilla/internal/plaintext"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/view"
)

// Client asks the nodes of a cluster.
type Client struct {
	*remote.Client
	env *cli.Env
}

// Look asks what the cluster is like.
func (c *Client) Look(ctx context.Context) (*view.Cluster, error) {
	reply, err := c.Status(ctx, "")
	if err != nil {
		return nil, err
	}
	return view.New(reply)
}

// View is Look, and shows progress when it takes long.
func (c *Client) View(ctx context.Context) (v *view.Cluster, err error) {
	c.env.Await("asking the nodes", func() { v, err = c.Look(ctx) })
	return v, err
}

// Do runs a request and prints what was done. An error says that it was refused, or that no node
// answered.
func (c *Client) Do(doing string, request func() (remote.Answer, error)) error {
	var a remote.Answer
	var err error
	c.env.Await(doing, func() { a, err = request() })
	if err != nil {
		return err
	}
	if a.Refused {
		return errors.New(plaintext.Safe(a.Text))
	}
	_, err = fmt.Fprintln(c.env.Stdout, plaintext.Safe(a.Text))
	return err
}
