package ops

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/remote"
)

const (
	eventsWait    = 20 * time.Second // longest wait of a request for an event
	eventsTimeout = 2 * time.Second  // beyond that, for another node to answer
)

// serveEvents answers with the events of this node, or has another node answer. It needs no
// cluster.
func (o *Operator) serveEvents(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeEventsRequest(body)
	if err != nil || q.Wait < 0 {
		return nil, codec.ErrMalformed
	}
	switch {
	case q.Node == "" || q.Node == o.cfg.Self.ID:
		reply, err := o.ownEvents(ctx, q)
		return reply.Encode(), err
	case o.cfg.Replica.IsServer(peer):
		return nil, errors.New("the question is for another node")
	}
	return o.askEvents(ctx, q).Encode(), nil
}

// ownEvents answers for this node.
func (o *Operator) ownEvents(ctx context.Context, q remote.EventsRequest) (remote.EventsReply, error) {
	reply := remote.EventsReply{Process: o.cfg.Self.Incarnation}
	if q.Process != reply.Process {
		q.After = 0
	}
	ctx, stop := o.cfg.Life.WhileOpen(ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, min(q.Wait, eventsWait))
	defer cancel()
	found := o.cfg.Up.Events.Wait(ctx, q.After)
	if len(found) == 0 {
		return reply, nil
	}
	var err error
	reply.Events, err = json.Marshal(found)
	return reply, err
}

// askEvents has another member answer.
func (o *Operator) askEvents(ctx context.Context, q remote.EventsRequest) remote.EventsReply {
	if !o.cfg.Replica.IsServer(q.Node) {
		return remote.EventsReply{Why: o.cfg.Peers.NameOf(q.Node) + " is no member"}
	}
	ctx, cancel := context.WithTimeout(ctx, min(q.Wait, eventsWait)+eventsTimeout)
	defer cancel()
	b, err := o.cfg.Replica.Port.Call(ctx, q.Node, remote.CallEvents, q.Encode())
	if err != nil {
		return remote.EventsReply{Why: unreached(ctx, err)}
	}
	reply, err := remote.DecodeEventsReply(b)
	if err != nil {
		return remote.EventsReply{Why: unreached(ctx, nil)}
	}
	return reply
}

// Events returns the events of all members that answer in time, joined.
func (o *Operator) Events(ctx context.Context) []event.Event {
	members := o.listMembers()
	all := make([][]event.Event, len(members))
	var asking sync.WaitGroup
	for i, m := range members {
		if m.ID == o.cfg.Self.ID {
			all[i] = o.cfg.Up.Events.After(0)
			continue
		}
		asking.Go(func() {
			// A node that does not answer keeps its events to itself: the rest is worth showing.
			all[i], _ = o.askEvents(ctx, remote.EventsRequest{Node: m.ID}).List()
		})
	}
	asking.Wait()
	return event.Merge(all...)
}
