package remote

import "context"

// Status asks a node what it knows of the cluster. An empty ID stands for all members.
func (c *Client) Status(ctx context.Context, node string) (StatusReply, error) {
	reply, err := c.call(ctx, CallStatus, StatusRequest{Node: node}.Encode())
	if err != nil {
		return StatusReply{}, err
	}
	return DecodeStatusReply(reply)
}

// Remove takes a member out of the cluster for good.
func (c *Client) Remove(ctx context.Context, q RemoveRequest) (Answer, error) {
	return c.ask(ctx, CallRemove, q.Encode())
}

// Vote promotes or demotes a member.
func (c *Client) Vote(ctx context.Context, q VoteRequest) (Answer, error) {
	return c.ask(ctx, CallVote, q.Encode())
}

// Transfer hands over the leadership.
func (c *Client) Transfer(ctx context.Context, q TransferRequest) (Answer, error) {
	return c.ask(ctx, CallTransfer, q.Encode())
}

// Move hands over a role.
func (c *Client) Move(ctx context.Context, q MoveRequest) (Answer, error) {
	return c.ask(ctx, CallMove, q.Encode())
}

// Drain makes a node take no new clients and no roles, or undoes that.
func (c *Client) Drain(ctx context.Context, q DrainRequest) (Answer, error) {
	return c.ask(ctx, CallDrain, q.Encode())
}

func (c *Client) ask(ctx context.Context, path string, body []byte) (Answer, error) {
	reply, err := c.call(ctx, path, body)
	if err != nil {
		return Answer{}, err
	}
	return DecodeAnswer(reply)
}
