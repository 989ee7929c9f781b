package remote

import (
	"context"

	"github.com/flotilla-ha/flotilla/internal/codec"
)

// CallUpgrade takes an UpgradeRequest. Its reply is an Answer.
const CallUpgrade = "/1/upgrade"

// UpgradeRequest asks to raise the cluster version as far as every member supports it.
type UpgradeRequest struct{}

// Encode returns the message's bytes.
func (UpgradeRequest) Encode() []byte { return nil }

// DecodeUpgradeRequest is the inverse of Encode.
func DecodeUpgradeRequest(b []byte) (UpgradeRequest, error) {
	d := codec.Decoder{B: b}
	return UpgradeRequest{}, d.End()
}

// Upgrade raises the cluster version.
func (c *Client) Upgrade(ctx context.Context) (Answer, error) {
	return c.ask(ctx, CallUpgrade, UpgradeRequest{}.Encode())
}
