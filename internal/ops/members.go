package ops

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/replica"
)

// serveRemove removes a member, on the leader.
func (o *Operator) serveRemove(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeRemoveRequest(body)
	if err != nil || q.Node == "" {
		return nil, codec.ErrMalformed
	}
	return toLeader(ctx, o, peer, remote.CallRemove, body, func(ctx context.Context, l *replica.Leadership) (remote.Answer, error) {
		return o.RemoveMember(ctx, l, q)
	})
}

// RemoveMember removes another member from the cluster, if a majority of the remaining voters is
// present. Only the leader may call it. It refuses to remove a member that is present unless
// q.Force is set.
func (o *Operator) RemoveMember(ctx context.Context, l *replica.Leadership, q remote.RemoveRequest) (remote.Answer, error) {
	name := o.cfg.Peers.NameOf(q.Node)
	s := o.cfg.Store.State()
	switch {
	case !o.cfg.Replica.IsServer(q.Node) && !slices.Contains(s.Servers, q.Node):
		return done("%s is no member any more", name)
	case q.Node == o.cfg.Self.ID:
		return refuse("%s leads the cluster; hand the leadership over first (flotilla members transfer)", name)
	case !q.Force && s.Session(q.Node) != nil:
		return refuse("%s is present; stop it first, or have it leave by itself (Node.Leave). With -force it is removed all the same", name)
	case !q.Force && l.Acks.There(q.Node):
		return refuse("%s answers, and is about to be present; stop it first. With -force it is removed all the same", name)
	}
	if left, there := l.Without(q.Node); there <= left/2 {
		return refuse("without %s only %d of the %d voters that are left would be there, and no majority of them; start the others first", name, there, left)
	}
	o.cfg.Log.Info("an operator removes a member", "peer", q.Node, "name", name, "force", q.Force)
	if err := o.cfg.Members.Remove(ctx, l, q.Node); err != nil {
		return remote.Answer{}, fmt.Errorf("removing %s: %w", name, err)
	}
	return done("%s is no member any more; with an empty directory it joins as a new node", name)
}

// serveTransfer hands the leadership over, on the leader.
func (o *Operator) serveTransfer(ctx context.Context, peer string, body []byte) ([]byte, error) {
	q, err := remote.DecodeTransferRequest(body)
	if err != nil || q.From == "" {
		return nil, codec.ErrMalformed
	}
	return toLeader(ctx, o, peer, remote.CallTransfer, body, func(ctx context.Context, l *replica.Leadership) (remote.Answer, error) {
		return o.transferFor(ctx, l, q)
	})
}

// transferFor hands this node's leadership over.
func (o *Operator) transferFor(ctx context.Context, l *replica.Leadership, q remote.TransferRequest) (remote.Answer, error) {
	to, name := raft.ServerID(q.To), o.cfg.Peers.NameOf(q.To)
	switch {
	case q.To == o.cfg.Self.ID:
		return done("%s leads", name)
	case q.To == "" && q.From != o.cfg.Self.ID:
		return done("%s leads", o.cfg.Self.Name) // the answer to an earlier call was lost
	case q.To != "":
		servers := o.cfg.Replica.Servers()
		i := slices.IndexFunc(servers, func(srv raft.Server) bool { return srv.ID == to })
		switch {
		case i < 0:
			return refuse("%s is no member", name)
		case servers[i].Suffrage != raft.Voter:
			return refuse("%s does not vote, and so cannot lead", name)
		case !o.cfg.Store.State().CanLead(q.To):
			return refuse("%s is a witness or was demoted, and so does not lead; name another node", name)
		case !l.Acks.There(q.To):
			return refuse("%s is not there; start it first, or name another node", name)
		case l.Offered(to):
			return refuse("%s was offered the leadership a moment ago and did not take it; name another node", name)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Replica.TransferTimeout())
	defer cancel()
	if err := o.cfg.Replica.Transfer(ctx, q.To); err != nil {
		return refuse("the leadership stays with %s: %v", o.cfg.Self.Name, err)
	}
	for {
		changed := o.cfg.Life.Changed.Wait()
		if leader := o.cfg.Replica.Leader(); leader != "" && leader != o.cfg.Self.ID {
			if q.To != "" && leader != q.To {
				return refuse("%s leads now, and not %s", o.cfg.Peers.NameOf(leader), name)
			}
			return done("%s leads", o.cfg.Peers.NameOf(leader))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return refuse("%s leads no more, and nobody else seems to yet; look again (flotilla status)", o.cfg.Self.Name)
		}
	}
}
