package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/codec"
)

// CallEvents takes an EventsRequest. Its reply is an EventsReply.
const CallEvents = "/1/events"

// EventsRequest asks for the events that a node keeps. Any node takes it, also one that is in no
// cluster yet, and passes it on.
type EventsRequest struct {
	// Node is the node's ID. Empty: the node that takes the request.
	Node string

	// Process is the process of the node that After belongs to, from an earlier reply. In another
	// process all events are newer than After.
	Process string

	// After is the number of the newest event that the caller has. 0: it has none.
	After uint64

	// Wait is how long the node waits for an event, if it has none. It waits for 20 s at most.
	Wait time.Duration
}

// Encode returns the message's bytes.
func (m EventsRequest) Encode() []byte {
	var e codec.Encoder
	e.String(m.Node)
	e.String(m.Process)
	e.Uint(m.After)
	e.Int(int64(m.Wait))
	return e.B
}

// DecodeEventsRequest is the inverse of Encode.
func DecodeEventsRequest(b []byte) (EventsRequest, error) {
	d := codec.Decoder{B: b}
	m := EventsRequest{Node: d.String(), Process: d.String(), After: d.Uint(), Wait: time.Duration(d.Int())}
	return m, d.End()
}

// EventsReply answers an EventsRequest. It has at most two MiB.
type EventsReply struct {
	// Process names the process of the node.
	Process string

	// Events is a list of event.Event in JSON, the oldest first. Empty: there is none.
	Events []byte

	// Why is why the node did not answer. Empty: it did.
	Why string
}

// Encode returns the message's bytes.
func (m EventsReply) Encode() []byte {
	var e codec.Encoder
	e.String(m.Process)
	e.Bytes(m.Events)
	e.String(m.Why)
	return e.B
}

// DecodeEventsReply is the inverse of Encode. Events is a part of b, not a copy.
func DecodeEventsReply(b []byte) (EventsReply, error) {
	d := codec.Decoder{B: b}
	m := EventsReply{Process: d.String(), Events: d.Bytes(), Why: d.String()}
	return m, d.End()
}

// List returns the events of the reply. The error says why the node did not answer.
func (m EventsReply) List() ([]event.Event, error) {
	if m.Why != "" {
		return nil, errors.New(m.Why)
	}
	var all []event.Event
	if len(m.Events) > 0 {
		if err := json.Unmarshal(m.Events, &all); err != nil {
			return nil, fmt.Errorf("its events are malformed; it runs another version of flotilla: upgrade the older of the two (%w)", err)
		}
	}
	return all, nil
}

// Events asks for the events of a node.
func (c *Client) Events(ctx context.Context, q EventsRequest) (EventsReply, error) {
	reply, err := c.call(ctx, CallEvents, q.Encode())
	if err != nil {
		return EventsReply{}, err
	}
	return DecodeEventsReply(reply)
}
