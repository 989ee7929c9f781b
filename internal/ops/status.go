package ops

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

const statusTimeout = 2 * time.Second // for another node to report its status

// serveStatus answers for this node, and asks the others for their status.
func (o *Operator) serveStatus(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeStatusRequest(body)
	if err != nil {
		return nil, codec.ErrMalformed
	}
	return o.status(ctx, q.Node, o.cfg.Replica.IsServer(peer)).Encode(), nil
}

// Status returns what all members that answer in time say of themselves.
func (o *Operator) Status(ctx context.Context) remote.StatusReply { return o.status(ctx, "", false) }

// status returns what a member says of itself, or all of them if node is empty. If local is true,
// other nodes are not asked.
func (o *Operator) status(ctx context.Context, node string, local bool) (reply remote.StatusReply) {
	for _, m := range o.listMembers() {
		if node == "" || node == m.ID {
			reply.Nodes = append(reply.Nodes, remote.NodeStatus{ID: m.ID, Name: m.Name, Addr: m.Addr})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var asking sync.WaitGroup
	for i := range reply.Nodes {
		asking.Go(func() { o.fillStatus(ctx, &reply.Nodes[i], local) })
	}
	asking.Wait()
	return reply
}

// listMembers returns this node, and then the others in the order of their names.
func (o *Operator) listMembers() []state.Member {
	self := o.cfg.Members.AsMember()
	var others []state.Member
	for _, id := range o.cfg.Replica.Others() {
		m, ok := o.cfg.Store.State().Member(id)
		if !ok {
			m, _ = o.cfg.Peers.Get(id)
			m.ID = id
		}
		others = append(others, m)
	}
	slices.SortFunc(others, func(a, b state.Member) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return append([]state.Member{self}, others...)
}

// fillStatus adds a node's own report to what is known of it. If local is true, other nodes are
// not asked.
func (o *Operator) fillStatus(ctx context.Context, out *remote.NodeStatus, local bool) {
	if out.ID == o.cfg.Self.ID {
		b, explained, err := o.cfg.Up.Status()
		if err != nil {
			out.Why = err.Error()
			return
		}
		if out.Status = b; !explained {
			out.Why = o.cfg.Members.WhyNot()
		}
		return
	}
	if local {
		out.Why = "it was not asked"
		return
	}
	b, err := o.cfg.Replica.Port.Call(ctx, out.ID, remote.CallStatus, remote.StatusRequest{Node: out.ID}.Encode())
	if err == nil {
		var reply remote.StatusReply
		if reply, err = remote.DecodeStatusReply(b); err == nil && len(reply.Nodes) == 1 {
			out.Status, out.Why = reply.Nodes[0].Status, reply.Nodes[0].Why
			return
		}
	}
	out.Why = unreached(ctx, err)
}

// unreached says in a few words why another node did not answer.
func unreached(ctx context.Context, err error) string {
	var answer *wire.RPCError
	switch {
	case errors.As(err, &answer) && answer.Status == http.StatusNotFound:
		return "it runs an older version of flotilla, which does not know the question"
	case errors.As(err, &answer):
		return answer.Message
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens at its address"
	case ctx.Err() != nil:
		return "no answer in time"
	case err == nil:
		return "its answer is malformed"
	}
	return err.Error()
}
